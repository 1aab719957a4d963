// The words of the page, in the browser's language.

import en from "./words-en.js";
import fr from "./words-fr.js";
import refusalsFr from "./refusals-fr.js";
import { preferences, remember } from "./preferences.js";

const WORDS = { en, fr };
const REFUSALS = { fr: refusalsFr };
const listeners = [];

const preferred = (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2));
let current = WORDS[preferences.language]
  ? preferences.language
  : (preferred.find((code) => WORDS[code]) ?? "en");

export const language = () => current;

/** A text; `{name}` in it becomes `values.name`. Plurals: keys that end in .one and .other. */
export function t(name, values = {}) {
  const words = WORDS[current];
  const plural = "count" in values ? `.${new Intl.PluralRules(current).select(values.count)}` : "";
  const text = words[name + plural] ?? words[`${name}.other`] ?? words[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

/** A text in another language, where that is one of the page's. */
export function tIn(code, name) {
  return (WORDS[code] ?? WORDS[current])[name];
}

/** What an error code of the service means, where the page's language is not the service's. */
export const refusal = (code) => REFUSALS[current]?.[code];

/** How the person's own region writes numbers and times, where they read that language. */
const locale = () => navigator.languages?.find((tag) => tag.slice(0, 2) === current) ?? current;

/** What a language is called in the page's. */
export function languageName(code) {
  return new Intl.DisplayNames([current], { type: "language" }).of(code);
}

/** A number with so many decimals, as the language writes it. */
export function number(value, digits = 0) {
  const form = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return value.toLocaleString(locale(), form);
}

/** A part of one as a percentage. */
export function percent(part) {
  return part.toLocaleString(locale(), { style: "percent" });
}

/** Seconds for people: milliseconds under one second. */
export function duration(seconds) {
  if (seconds < 0.9995) return `${number(seconds * 1000)} ms`;
  if (seconds < 60) return `${number(seconds, seconds < 10 ? 2 : 1)} s`;
  return `${Math.floor(seconds / 60)} min ${String(Math.round(seconds % 60)).padStart(2, "0")} s`;
}

export function moment(date, style = { hour: "2-digit", minute: "2-digit" }) {
  return new Date(date).toLocaleString(locale(), style);
}

/** Call now and whenever the language changes. */
export function onLanguage(apply) {
  listeners.push(apply);
  apply();
}

export function setLanguage(code) {
  current = code;
  remember({ language: code });
  for (const apply of listeners) apply();
}

/** Translate the elements that name their text: `data-t` and `data-t-label`. */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
    if (element.matches("button")) element.title = t(element.dataset.tLabel);
  }
}
