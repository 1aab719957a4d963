// Elements without markup in strings: text stays text, so nothing a model or a viewer writes can
// become part of the page.

import { refusal } from "./i18n.js";

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("p", { class: "lead", onclick }, "text", child)`; null children are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** One of the icons in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Show a message (and what can be done about it) in a `.problem` paragraph; null hides it. */
export function showProblem(element, error) {
  element.hidden = !error;
  element.replaceChildren();
  if (!error) return;
  const said = [error.message, error.remedy].filter(Boolean).map(sentence);
  const meaning = refusal(error.code);
  const details = meaning ? h("span", { lang: "en" }, said.join(" ")) : said.slice(1).join(" ");
  element.append(h("strong", {}, meaning ? sentence(meaning) : said[0]), " ", details);
}

export function sentence(text) {
  const trimmed = String(text).trim();
  const capital = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(capital) ? capital : `${capital}.`;
}

/** Fill and open a dialog; its first `[autofocus]` gets the focus, in one that was open as well. */
export function openDialog(dialog, ...content) {
  dialog.replaceChildren(...content.filter((child) => child !== null));
  if (!dialog.open) dialog.showModal();
  else (dialog.querySelector("[autofocus]") ?? dialog.querySelector("button")).focus();
}

/** A dialog's heading with its close button. */
export function dialogHead(dialog, id, title, closeLabel) {
  return h("header", { class: "sheet-head" },
    h("h2", { id }, title),
    h("button", { class: "round", type: "button", "aria-label": closeLabel, onclick: () => dialog.close() }, icon("close")));
}
