// The conversation: the stage, the message box, what was said.

import { avatarPath, cast } from "../cast.js";
import { $, h, showProblem } from "../dom.js";
import { media, Problem } from "../http.js";
import { language, languageName, onLanguage, t, tIn } from "../i18n.js";
import { captionAt } from "../captions.js";
import { Player } from "../player.js";
import { preferences, remember } from "../preferences.js";
import { speech } from "../voices.js";
import { Log } from "./log.js";
import { openSettings } from "./settings.js";
import { MicrophoneButton } from "./microphone-button.js";

const PROBLEM_MS = 9000;
const PATIENCE_MS = 4000;

export class TalkView {
  #session;
  #player;
  #problemTimer = 0;
  #patience = 0;
  #faces = ""; // what the row of faces shows
  #slow = false; // connecting takes long: the avatar is being prepared
  #microphone;
  #log;

  constructor(session, player) {
    this.#session = session;
    this.#player = player;
    this.#log = new Log(session);
    this.#microphone = new MicrophoneButton(session, () => this.mode, {
      problem: (error) => this.problem(error),
      transcription: () => speech.transcription,
      heard: (text) => this.#heard(text),
      name: () => this.name,
      listening: (on) => this.#listening(on),
    });
    this.#bindStage();
    this.#bindComposer();
    session.addEventListener("phase", ({ detail }) => this.#phase(detail));
    session.addEventListener("state", () => this.#state());
    session.addEventListener("problem", ({ detail }) => this.problem(detail.error));
    cast.addEventListener("change", () => this.#castRow());
    player.ontick = (time) => this.#caption(time);
    player.onmuted = () => this.#sound();
    onLanguage(() => this.#words());
    if (!Player.supported) {
      this.problem(new Problem({ message: t("stage.unsupported"), remedy: t("stage.unsupported.remedy") }), true);
    }
  }

  get mode() {
    return document.querySelector('input[name="mode"]:checked').value;
  }

  get avatar() {
    // Who is chosen, while the session with them is only beginning.
    return this.#session.joined?.avatar ?? preferences.avatar;
  }

  get name() {
    return this.avatar ? cast.name(this.avatar) : t("avatar");
  }

  /** Talk to another avatar, or to the same one with new settings. */
  choose(id) {
    remember({ avatar: id });
    this.#log.clear();
    $("starters").hidden = false;
    this.#session.restart();
    this.#castRow();
  }

  /** Another view is opened: nobody sees there that the microphone listens. */
  hide() {
    if (this.#microphone.recording) this.#microphone.cancel();
  }

  problem(error, stays = false) {
    if (error && !error.message) return;
    clearTimeout(this.#problemTimer);
    showProblem($("talk-problem"), error);
    if (error && !stays) this.#problemTimer = setTimeout(() => this.problem(null), PROBLEM_MS);
  }

  #bindStage() {
    const unmute = () => {
      if (!this.#player.muted) return;
      this.#player.muted = false;
      this.#sound();
    };
    for (const gesture of ["pointerup", "keydown"]) {
      addEventListener(gesture, (event) => {
        if (!event.target.closest?.("#sound-toggle") && !this.silenced) unmute();
      });
    }
    $("sound-toggle").addEventListener("click", () => {
      this.silenced = !this.#player.muted;
      this.#player.muted = this.silenced;
      this.#sound();
    });
    $("captions-toggle").addEventListener("click", () => {
      remember({ captions: !preferences.captions });
      $("captions-toggle").setAttribute("aria-pressed", String(preferences.captions));
    });
    $("captions-toggle").setAttribute("aria-pressed", String(preferences.captions));
    $("tune").addEventListener("click", () => openSettings(this.avatar, this));
    this.#sound();
  }

  #bindComposer() {
    const box = $("message");
    for (const input of document.querySelectorAll('input[name="mode"]')) {
      input.checked = input.value === preferences.mode;
      input.addEventListener("change", () => {
        remember({ mode: this.mode });
        this.#words();
        box.focus();
      });
    }
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#send();
      }
    });
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    $("interrupt").addEventListener("click", () => this.#interrupt());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
        if (this.#microphone.recording) this.#microphone.cancel();
        else this.#interrupt();
      }
    });
  }

  async #send() {
    const text = $("message").value.trim();
    if (!text || this.#session.phase !== "ready") return $("message").focus();
    $("message").value = "";
    await this.#start(text, this.mode);
  }

  async #start(text, mode) {
    this.problem(null);
    $("starters").hidden = true; // a second click would say it again
    try {
      await this.#session[mode](text);
    } catch (error) {
      // What was typed is not lost: it can be sent again.
      if (!$("message").value) $("message").value = text;
      $("starters").hidden = $("log").childElementCount > 0;
      this.problem(error);
    }
  }

  async #interrupt() {
    if (this.#session.state === "idle") return;
    try {
      await this.#session.interrupt();
    } catch (error) {
      this.problem(error);
    }
  }

  #heard(text) {
    $("message").value = "";
    this.#start(text, "ask");
  }

  #phase({ phase, error }) {
    $("stage").dataset.state = phase === "ready" ? this.#session.state : phase;
    if (phase === "refused") this.problem(error, true);
    if (phase === "ready") {
      const { width, height, resumed } = this.#session.joined;
      $("stage").style.setProperty("--aspect", Math.min(Math.max(width / height, 0.8), 16 / 9));
      if (!resumed) $("caption").replaceChildren();
      remember({ avatar: this.avatar });
      this.problem(null);
      cast.refresh().catch(() => {});
    }
    $("send").disabled = phase !== "ready";
    clearTimeout(this.#patience);
    this.#slow = false;
    if (phase === "connecting") {
      this.#patience = setTimeout(() => {
        this.#slow = true;
        this.#status();
      }, PATIENCE_MS);
    }
    this.#words();
    this.#castRow();
  }

  #state() {
    if (this.#session.phase === "ready") $("stage").dataset.state = this.#session.state;
    this.#listening(this.#microphone.recording);
  }

  #listening(recording) {
    $("interrupt").hidden = this.#session.state === "idle" || recording;
    $("composer").classList.toggle("recording", recording);
    this.#status();
  }

  #status() {
    const { phase, state } = this.#session;
    const name = this.#microphone.recording ? "listening" : phase === "ready" ? state : this.#slow ? "preparing" : phase;
    if ($("status").dataset.name !== name + document.documentElement.lang) {
      $("status").dataset.name = name + document.documentElement.lang;
      $("status").textContent = t(`status.${name}`);
    }
  }

  #sound() {
    $("unmute").hidden = !this.#player.muted || this.silenced;
    $("sound-toggle").setAttribute("aria-pressed", String(!this.#player.muted));
    $("sound-toggle").querySelector("use").setAttribute("href", this.#player.muted ? "#i-muted" : "#i-sound");
  }

  #caption(time) {
    const text = preferences.captions ? captionAt(this.#session.captions, time) : "";
    if ($("caption").textContent !== text) $("caption").textContent = text;
  }

  #castRow() {
    const current = this.avatar;
    const shown = JSON.stringify([current, cast.ready.map(({ id, name }) => [id, name])]);
    if (shown !== this.#faces) this.#drawFaces(current);
    this.#faces = shown;
    this.#poster();
    this.#words();
  }

  #drawFaces(current) {
    const faces = cast.ready.map((avatar) => {
      const image = h("img", { alt: "", width: 44, height: 44, onload: () => URL.revokeObjectURL(image.src) });
      media(avatarPath(avatar.id, "poster.jpg")).then((source) => (image.src = source)).catch(() => {});
      return h("button", {
        type: "button", class: "face", title: cast.name(avatar.id), "aria-label": cast.name(avatar.id),
        "aria-pressed": String(avatar.id === current),
        onclick: () => avatar.id !== current && this.choose(avatar.id),
      }, image);
    });
    const focused = $("cast").contains(document.activeElement);
    $("cast").replaceChildren(...faces);
    if (focused) $("cast").querySelector('[aria-pressed="true"]')?.focus();
  }

  /** A still face until the live one is there. */
  #poster() {
    const id = this.avatar ?? cast.ready[0]?.id;
    if (!id || $("live").poster) return;
    media(avatarPath(id, "poster.jpg")).then((source) => ($("live").poster = source)).catch(() => {});
  }

  #words() {
    const name = this.name;
    $("message").placeholder = t(`composer.${this.mode}`, { name });
    const embedded = this.mode === "ask" && this.#session.joined && !this.#session.joined.live_responder;
    const spoken = speech.language;
    const foreign = spoken !== language();
    const hint = embedded ? "hint.embedded" : foreign ? "hint.foreign" : `hint.${this.mode}`;
    $("composer-hint").textContent = t(hint, { name, language: languageName(spoken) });
    $("notice").hidden = !preferences.notice;
    const starters = [1, 2, 3].map((n) => tIn(spoken, `starter.${n}`));
    $("starters").replaceChildren($("starters").firstElementChild, ...starters.map((text) =>
      h("button", { type: "button", class: "starter", lang: spoken, onclick: () => this.#start(text, "say") }, text)));
    this.#microphone.words();
    this.#log.words();
    this.#status();
  }

  /** Something in the preferences changed. */
  refresh() {
    this.#words();
  }
}
