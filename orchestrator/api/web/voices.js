// What the server can speak and hear.

import { call } from "./http.js";
import { language } from "./i18n.js";

export const speech = {
  voices: [],
  /** Whether the server writes down what is said to it. */
  transcription: false,
  /** Whether a language model answers. */
  llm: false,

  async load() {
    Object.assign(this, await call("/v1/voices"));
  },

  /** The language to speak: that of the page, if a voice knows it. */
  get language() {
    const known = this.voices.map((voice) => voice.language);
    return !known.length || known.includes("") || known.includes(language()) ? language() : known[0];
  },
};
