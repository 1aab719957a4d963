// One conversation with the server: joins, joins again when the connection is lost, hands media
// to the player, and keeps what is known of each turn.

import { key, Problem, renewKey, unreachable } from "./http.js";
import { Refused, Socket } from "./socket.js";

const PLACE = "musetalk.session";
const RETRY_MS = [250, 500, 1000, 2000, 4000];
const PLAYHEAD_MS = 250;
const TURNS_KEPT = 50;
const JOIN_MS = 150000; // an avatar that nobody used before is prepared first
const LEAVE_MS = 1000;
const ELSEWHERE_MS = 60000; // a server alone takes its time to stop and to start again
const PIECE_BYTES = 64000; // 2 s of speech; the server takes up to 64 KB

export class Session extends EventTarget {
  #player;
  #choices;
  #socket = null;
  #place = {};
  #tries = 0;
  #timer = 0;
  #asked = null; // when the request that is not a turn yet was made
  #firsts = new Set();
  #restarts = 0;

  /** connecting | ready | lost | refused */
  phase = "connecting";
  /** idle | thinking | speaking */
  state = "idle";
  turn = null;
  joined = null;
  /** The last turns by id, oldest first. */
  turns = new Map();
  /** What is said when: { turn, index, text, start, end } in media seconds. */
  captions = [];

  /** `choices()` resolves to what to join with: avatar, voice, profile, language, system_prompt. */
  constructor(player, choices) {
    super();
    this.#player = player;
    this.#choices = choices;
    try {
      this.#place = JSON.parse(sessionStorage.getItem(PLACE)) ?? {};
    } catch {
      this.#place = {};
    }
    delete this.#place.last_sequence; // the media of a page that is gone
    setInterval(() => this.#report(), PLAYHEAD_MS);
    addEventListener("online", () => this.#socket === null && this.phase === "lost" && this.#retry(0));
  }

  async connect() {
    clearTimeout(this.#timer);
    const socket = new Socket();
    this.#socket = socket;
    this.#listen(socket);
    socket.onclose = () => socket === this.#socket && this.#lost();
    const used = key();
    const restarts = this.#restarts;
    const { protocol, host } = location;
    const address = `${protocol.replace("http", "ws")}//${host}/socket.io/?EIO=4&transport=websocket`;
    try {
      await socket.open(address, used ? { key: used } : {});
      if (socket !== this.#socket) return socket.close();
      return await this.#join(socket);
    } catch (error) {
      if (!(error instanceof Refused)) return socket === this.#socket && socket.close();
      return restarts === this.#restarts && this.#refused(error, used);
    }
  }

  /** Begin again with other choices (another avatar, voice or profile). */
  async restart() {
    const socket = this.#socket;
    const restart = ++this.#restarts;
    this.#socket = this.joined = null;
    this.#forget();
    this.captions = [];
    this.#become("idle", null);
    this.#enter("connecting");
    const left = socket?.request("leave", {}, JOIN_MS).catch(() => {}).then(() => socket.close());
    // A server that is still preparing the face of the last choice hears of it afterwards.
    await Promise.race([left, new Promise((resolve) => setTimeout(resolve, LEAVE_MS))]);
    // Who chose again meanwhile is connected by that choice; two connections would be two sessions.
    if (restart === this.#restarts) await this.connect();
  }

  say(text) {
    return this.#begin("say", { text }, text);
  }

  ask(text) {
    return this.#begin("ask", { text }, text);
  }

  /** The avatar speaks recorded sound: 16 kHz mono, Int16Array. */
  async speak(samples) {
    const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
    const asked = performance.now();
    let turn;
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      const final = at + PIECE_BYTES >= bytes.length;
      turn = await this.#begin("speech", { audio: bytes.slice(at, at + PIECE_BYTES), final }, "", asked, at > 0);
    }
    return turn;
  }

  async interrupt() {
    this.#hush();
    await this.#request("interrupt", {});
  }

  /** What is cut off ends for the viewer now, not when the server's cut arrives. */
  #hush() {
    this.#player.hush();
    this.captions = [];
  }

  async #begin(mode, data, text, asked = performance.now(), more = false) {
    this.#asked = asked;
    if (this.state === "speaking" && !more) this.#hush();
    const { turn: id } = await this.#request(mode, data);
    const turn = this.#turn(id);
    Object.assign(turn, { mode, text, asked });
    this.#measure(turn);
    this.#tell("turn", turn);
    return turn;
  }

  async #request(event, data) {
    if (this.phase !== "ready") throw unreachable();
    const answer = await this.#socket.request(event, data);
    if (answer.ok) return answer;
    const stopping = answer.error.code === "stopping" && event !== "speech";
    if (!stopping || !(await this.#elsewhere())) throw new Problem(answer.error);
    return this.#request(event, data);
  }

  /** Leave a server that is about to stop for one that is not; whether one was found in time. */
  #elsewhere() {
    return new Promise((found) => {
      const over = new AbortController();
      const settle = (moved) => {
        over.abort();
        clearTimeout(timer);
        found(moved);
      };
      const timer = setTimeout(settle, ELSEWHERE_MS, false);
      const look = () => {
        if (this.phase === "ready") settle(true);
        else if (this.phase === "refused") settle(false);
      };
      this.addEventListener("phase", look, { signal: over.signal });
      this.#socket?.close();
    });
  }

  async #join(socket) {
    const answer = await socket.request("join", { ...(await this.#choices()), ...this.#place }, JOIN_MS);
    if (socket !== this.#socket) return undefined; // another choice was made meanwhile
    if (!answer.ok) {
      if (this.#place.session && !answer.error.retryable) {
        this.#forget();
        return this.#join(socket);
      }
      const error = new Problem(answer.error);
      this.#tell("problem", { error });
      if (answer.error.retryable) {
        this.#tries = Math.max(this.#tries, RETRY_MS.length - 2);
        return socket.close();
      }
      this.#enter("refused", error);
      this.#socket = null;
      return socket.close();
    }
    this.#tries = 0;
    this.joined = answer;
    const { session, token } = answer;
    this.#place = { ...this.#place, session, token };
    sessionStorage.setItem(PLACE, JSON.stringify({ session, token }));
    return this.#enter("ready");
  }

  async #refused(error, used) {
    clearTimeout(this.#timer); // the connection was lost, too, but trying again needs another key
    this.#socket = null;
    if (await renewKey(used)) return this.connect();
    this.#enter("refused", error);
  }

  #listen(socket) {
    const on = (event, handle) => socket.on(event, (...data) => socket === this.#socket && handle(...data));
    on("media", (message, acknowledge) => {
      const received = () => {
        this.#place.last_sequence = message.sequence;
        acknowledge();
      };
      if (message.kind === "init") {
        this.#player.start(this.joined.mime, message.data);
        return received();
      }
      if (message.kind === "speech") this.#firstFrame(message.start);
      this.#player.append(message, received);
    });
    on("flush", ({ from_pts: from }) => {
      this.#player.flush(from);
      this.captions = this.captions.filter(({ start }) => start < from);
      for (const caption of this.captions) caption.end = Math.min(caption.end, from);
    });
    on("state", ({ state, turn }) => this.#become(state, turn));
    on("progress", (progress) => {
      this.#turn(progress.turn).progress = progress;
      this.#tell("progress", progress);
    });
    on("transcript", (line) => {
      if (line.role === "avatar") this.captions = [...this.captions.slice(-40), { ...line }];
      this.#turn(line.turn).lines.set(`${line.role} ${line.index}`, line);
      this.#tell("transcript", line);
    });
    on("performance", (figures) => {
      const turn = this.#turn(figures.turn);
      turn.performance = figures;
      this.#tell("performance", turn);
    });
    on("error", (error) => this.#tell("problem", { error: new Problem(error) }));
  }

  #turn(id) {
    let turn = this.turns.get(id);
    if (!turn) {
      turn = { id, began: new Date(), mode: null, text: "", lines: new Map(), shown: null };
      this.turns.set(id, turn);
      if (this.turns.size > TURNS_KEPT) this.turns.delete(this.turns.keys().next().value);
    }
    return turn;
  }

  #become(state, id) {
    this.state = state;
    this.turn = id;
    if (id !== null && this.#asked !== null) this.#turn(id).asked ??= this.#asked;
    this.#tell("state", { state, turn: id });
  }

  /** When the first fragment of a turn arrives: wait for its first frame on the screen. */
  #firstFrame(start) {
    if (this.turn === null || this.#firsts.has(this.turn)) return;
    this.#firsts = new Set([...this.#firsts].slice(-TURNS_KEPT)).add(this.turn);
    const turn = this.#turn(this.turn);
    this.#player.whenShown(start, (now) => {
      turn.shownAt = now;
      this.#measure(turn);
      this.#tell("performance", turn);
    });
  }

  #measure(turn) {
    if (turn.shownAt && turn.asked !== undefined) turn.shown = (turn.shownAt - turn.asked) / 1000;
  }

  #report() {
    if (this.phase !== "ready" || document.hidden) return;
    this.#socket.emit("playhead", { time: this.#player.time, buffered: this.#player.ahead });
  }

  #lost() {
    this.#socket = null;
    this.#become("idle", null);
    this.#enter(this.joined ? "lost" : "connecting");
    this.#retry(RETRY_MS[Math.min(this.#tries++, RETRY_MS.length - 1)]);
  }

  #retry(delay) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.connect(), delay * (0.75 + Math.random() / 2));
  }

  #forget() {
    this.#place = {};
    sessionStorage.removeItem(PLACE);
  }

  #enter(phase, error = null) {
    this.phase = phase;
    this.#tell("phase", { phase, error });
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
