// The microphone beside the message box. In "say" the avatar repeats the recorded voice; in "ask"
// it is written down by a transcription server and asked.

import { $ } from "../dom.js";
import { call, Problem } from "../http.js";
import { language, t } from "../i18n.js";
import { Microphone, RATE, wav } from "../microphone.js";

const SHORTEST_SECONDS = 0.3;

export class MicrophoneButton {
  #session;
  #mode;
  #to;
  #microphone = null;
  #starting = false; // the browser may ask the person first, and a second click must not ask again
  #levels = [];

  /** `to` has: problem(error), transcription(), heard(text), name(), listening(on). */
  constructor(session, mode, to) {
    this.#session = session;
    this.#mode = mode;
    this.#to = to;
    $("microphone").addEventListener("click", () => this.#press());
  }

  get recording() {
    return this.#microphone !== null;
  }

  words() {
    const what = this.recording ? "stop" : this.#mode();
    const label = t(`microphone.${what}`, { name: this.#to.name() });
    $("microphone").setAttribute("aria-label", label);
    $("microphone").title = label;
    $("microphone").setAttribute("aria-pressed", String(this.recording));
  }

  cancel() {
    this.#microphone.cancel();
    this.#ended();
  }

  async #press() {
    if (this.recording) return this.#finish();
    if (this.#starting) return undefined;
    this.#starting = true;
    return this.#begin().finally(() => (this.#starting = false));
  }

  async #begin() {
    this.#to.problem(null);
    if (!Microphone.supported) return this.#refuse("none");
    if (this.#mode() === "ask" && !this.#to.transcription()) return this.#refuse("untranscribed");
    const microphone = new Microphone();
    microphone.onlevel = (level) => this.#draw(level);
    microphone.onfull = () => this.#finish();
    try {
      if (this.#session.state !== "idle") await this.#session.interrupt();
      await microphone.start();
    } catch (error) {
      microphone.cancel();
      if (error instanceof Problem) this.#to.problem(error);
      else this.#refuse("denied");
      return;
    }
    this.#microphone = microphone;
    this.#levels = [];
    $("level").hidden = false;
    this.words();
    this.#to.listening(true);
  }

  async #finish() {
    const microphone = this.#microphone;
    if (!microphone) return;
    this.#ended();
    const samples = await microphone.stop();
    if (samples.length < SHORTEST_SECONDS * RATE) return this.#refuse("nothing");
    try {
      if (this.#mode() === "say") await this.#session.speak(samples);
      else {
        $("composer-hint").textContent = t("microphone.transcribing");
        const form = new FormData();
        form.append("audio", wav(samples), "speech.wav");
        form.append("language", language());
        const { text } = await call("/v1/transcriptions", { method: "POST", form });
        if (!text.trim()) return this.#refuse("nothing");
        this.#to.heard(text.trim());
      }
    } catch (error) {
      this.#to.problem(error);
    }
  }

  #ended() {
    this.#microphone = null;
    $("level").hidden = true;
    this.words();
    this.#to.listening(false);
  }

  #refuse(why) {
    this.#to.problem(new Problem({ message: t(`microphone.${why}`), remedy: t(`microphone.${why}.remedy`) }));
  }

  #draw(level) {
    const canvas = $("level");
    const context = canvas.getContext("2d");
    const count = Math.floor(canvas.width / 6);
    this.#levels = [...this.#levels, level].slice(-count);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = getComputedStyle(canvas).color;
    this.#levels.forEach((value, i) => {
      const height = Math.max(3, Math.sqrt(value) * canvas.height);
      context.fillRect((count - this.#levels.length + i) * 6, (canvas.height - height) / 2, 3, height);
    });
  }
}
