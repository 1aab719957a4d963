// A small Socket.IO client: protocol 5 over Engine.IO 4, WebSocket only, default namespace,
// binary attachments and acknowledgements. One object is one connection; who wants another
// connection makes another object.

const OPEN = "0", PING = "2", PONG = "3", MESSAGE = "4";
const CONNECT = 0, DISCONNECT = 1, EVENT = 2, ACK = 3, CONNECT_ERROR = 4;
const BINARY_EVENT = 5, BINARY_ACK = 6;
const OPENING_MS = 8000;

export class Refused extends Error {}

export class Socket {
  #ws;
  #handlers = new Map();
  #waiting = new Map();
  #nextAck = 0;
  #partial = null;
  #silence = 0;
  #alive = 0;
  #settled = false;

  /** Called once, when the connection is over. */
  onclose = () => {};

  /** Connect; resolves when the server has accepted `auth`. */
  open(url, auth = {}) {
    return new Promise((resolve, reject) => {
      this.#ws = new WebSocket(url);
      this.#ws.binaryType = "arraybuffer";
      this.#silence = setTimeout(() => this.close(), OPENING_MS);
      this.#ws.onmessage = ({ data }) => {
        if (typeof data !== "string") return this.#attach(new Uint8Array(data));
        if (data[0] === OPEN) {
          const { pingInterval, pingTimeout } = JSON.parse(data.slice(1));
          this.#alive = pingInterval + pingTimeout;
          this.#heard();
          this.#ws.send(MESSAGE + CONNECT + JSON.stringify(auth));
        } else if (data[0] === PING) {
          this.#heard();
          this.#ws.send(PONG);
        } else if (data[0] === MESSAGE) {
          this.#read(data.slice(1), resolve, reject);
        }
      };
      this.#ws.onclose = () => {
        clearTimeout(this.#silence);
        reject(new Error("the connection was closed"));
        for (const { fail } of this.#waiting.values()) fail(new Error("the connection was closed"));
        this.#waiting.clear();
        if (!this.#settled) {
          this.#settled = true;
          this.onclose();
        }
      };
    });
  }

  close() {
    clearTimeout(this.#silence);
    // A dead network answers no closing handshake: waiting for it would hold up the next try.
    const closed = this.#ws.onclose;
    this.#ws.onclose = this.#ws.onmessage = null;
    this.#ws.close();
    closed?.();
  }

  /** Call `handler(data, acknowledge)` for an event. */
  on(event, handler) {
    this.#handlers.set(event, handler);
  }

  emit(event, data = {}) {
    this.#send(EVENT, null, [event, data]);
  }

  /** Emit, and resolve with what the server acknowledges. */
  request(event, data = {}, timeout = 15000) {
    const id = this.#nextAck++;
    return new Promise((done, fail) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        fail(new Error("the server did not answer"));
      }, timeout);
      const settle = (act) => (value) => {
        clearTimeout(timer);
        act(value);
      };
      this.#waiting.set(id, { done: settle(done), fail: settle(fail) });
      this.#send(EVENT, id, [event, data]);
    });
  }

  #heard() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.close(), this.#alive);
  }

  #send(type, id, payload) {
    if (this.#ws.readyState !== WebSocket.OPEN) return;
    const attachments = [];
    const json = JSON.stringify(payload, (_, value) => {
      if (!(value instanceof Uint8Array)) return value;
      attachments.push(value);
      return { _placeholder: true, num: attachments.length - 1 };
    });
    const head = attachments.length ? `${type + 3}${attachments.length}-` : `${type}`;
    this.#ws.send(MESSAGE + head + (id ?? "") + json);
    for (const bytes of attachments) this.#ws.send(bytes);
  }

  #read(text, accepted, refused) {
    const [, type, count, id, json] = /^(\d)(?:(\d+)-)?(\d*)(.*)$/s.exec(text);
    const packet = { type: Number(type), id: id === "" ? null : Number(id), files: [] };
    packet.data = json ? JSON.parse(json) : null;
    packet.missing = Number(count ?? 0);
    if (packet.type === CONNECT) accepted(packet.data);
    else if (packet.type === CONNECT_ERROR) {
      refused(new Refused(packet.data?.message ?? "the server refused the connection"));
      this.close();
    } else if (packet.type === DISCONNECT) this.close();
    else if (packet.missing) this.#partial = packet;
    else this.#dispatch(packet);
  }

  #attach(bytes) {
    const packet = this.#partial;
    if (!packet) return;
    packet.files.push(bytes);
    if (packet.files.length < packet.missing) return;
    this.#partial = null;
    packet.data = restore(packet.data, packet.files);
    this.#dispatch(packet);
  }

  #dispatch({ type, id, data }) {
    if (type === EVENT || type === BINARY_EVENT) {
      const acknowledge = id === null ? () => {} : (...answer) => this.#send(ACK, id, answer);
      this.#handlers.get(data[0])?.(data[1] ?? {}, acknowledge);
    } else if (type === ACK || type === BINARY_ACK) {
      this.#waiting.get(id)?.done(data[0]);
      this.#waiting.delete(id);
    }
  }
}

function restore(value, files) {
  if (Array.isArray(value)) return value.map((item) => restore(item, files));
  if (value === null || typeof value !== "object") return value;
  if (value._placeholder) return files[value.num];
  return Object.fromEntries(Object.entries(value).map(([k, item]) => [k, restore(item, files)]));
}
