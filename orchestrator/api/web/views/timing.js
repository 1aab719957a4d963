// Where the time goes: a waterfall for each turn, and what the server does now.

import { $, h, icon, showProblem } from "../dom.js";
import { call } from "../http.js";
import { duration, moment, number, onLanguage, percent, t } from "../i18n.js";

const STAGES = ["llm", "tts", "features", "queue", "inference", "compositing", "encoding"];
const MARKS = ["first_token", "first_audio", "first_frame"];
const POLL_MS = 1500;
const HISTORY = 40;
const TURNS_SHOWN = 12;

export class TimingView {
  #session;
  #player;
  #timer = 0;
  #shown = false;
  #history = { sessions: [], queue: [], cpu: [], player: [] };

  constructor(session, player) {
    this.#session = session;
    this.#player = player;
    session.addEventListener("performance", () => this.#shown && this.#turns());
    session.addEventListener("turn", () => this.#shown && this.#turns());
    onLanguage(() => this.#shown && this.show());
  }

  show() {
    this.#shown = true;
    this.#turns();
    this.#poll();
  }

  hide() {
    this.#shown = false;
    clearTimeout(this.#timer);
  }

  #turns() {
    const turns = [...this.#session.turns.values()].filter((turn) => turn.performance).reverse();
    if (!turns.length) return $("turns").replaceChildren(h("li", { class: "empty" }, icon("clock"), h("p", {}, t("timing.empty"))));
    return $("turns").replaceChildren(...turns.slice(0, TURNS_SHOWN).map((turn) => this.#turn(turn)));
  }

  #turn(turn) {
    const { performance: figures } = turn;
    const stages = STAGES.filter((name) => figures.stages[name]);
    const ends = stages.map((name) => figures.stages[name].start + figures.stages[name].duration);
    // The frame is on the screen a moment after the server sent it: by this browser's clock.
    const screen = turn.shown !== null && figures.first_frame !== null && turn.shown > figures.first_frame
      ? { start: figures.first_frame, duration: turn.shown - figures.first_frame } : null;
    const whole = Math.max(0.1, ...ends, turn.shown ?? 0);
    const rows = stages.map((name) => bar(name, figures.stages[name], whole));
    if (screen) rows.push(bar("screen", screen, whole));
    const marks = MARKS.filter((name) => typeof figures[name] === "number").map((name) => [name, figures[name]]);
    if (turn.shown !== null) marks.push(["shown", turn.shown]);
    const text = turn.text || [...turn.lines.values()].map((line) => line.text).join(" ") || t("rail.yourVoice");
    return h("li", { class: "card turn" },
      h("header", {}, h("p", { class: "turn-text" }, text), h("time", {}, moment(turn.began, { hour: "2-digit", minute: "2-digit", second: "2-digit" }))),
      h("dl", { class: "figures" },
        figure(t("timing.shown"), turn.shown === null ? "–" : duration(turn.shown), t("timing.shown.help"), true),
        figure(t("timing.rtf"), typeof figures.real_time_factor === "number" ? number(figures.real_time_factor, 2) : "–", t("timing.rtf.help")),
        figure(t("timing.late"), number(figures.frames_late), t("timing.late.of", { frames: number(figures.frames) })),
        figure(t("timing.total"), duration(figures.generation_time))),
      h("table", { class: "waterfall" },
        h("thead", { class: "unseen" }, h("tr", {}, ...["stage", "span", "busy"].map((name) => h("th", { scope: "col" }, t(`timing.${name}`))))),
        h("tbody", {}, ...rows)),
      h("ul", { class: "marks" }, ...marks.map(([name, at]) => h("li", { class: name }, h("span", {}, t(`mark.${name}`)), h("b", {}, duration(at))))));
  }

  async #poll() {
    clearTimeout(this.#timer);
    try {
      this.#stats(await call("/v1/stats"));
      showProblem($("timing-problem"), null);
    } catch (error) {
      showProblem($("timing-problem"), error); // above figures that are old now
    }
    if (this.#shown) this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  #stats({ sessions, triton, machine }) {
    const models = Object.entries(triton?.models ?? {});
    const pending = models.reduce((sum, [, model]) => sum + (model.pending ?? 0), 0);
    const queue = Math.max(0, ...models.map(([, model]) => model.queue_ms ?? 0));
    const open = ["idle", "thinking", "speaking"].reduce((sum, state) => sum + (sessions[state] ?? 0), 0);
    const values = { sessions: open, queue: pending, cpu: machine.cpu_percent ?? 0, player: this.#player.ahead };
    for (const [name, value] of Object.entries(values)) this.#history[name] = [...this.#history[name], value].slice(-HISTORY);
    $("tiles").replaceChildren(
      tile("sessions", number(open), { speaking: sessions.speaking ?? 0, limit: sessions.limit ?? "–" }, this.#history.sessions, 4),
      tile("queue", number(pending), { queue: number(queue, queue < 10 ? 1 : 0) }, this.#history.queue, 4),
      tile("cpu", percent(values.cpu / 100), { memory: percent(machine.memory / 100) }, this.#history.cpu, 100),
      tile("player", number(values.player, 1), { stalls: this.#player.stalls.length }, this.#history.player, 2));
    const head = ["model", "batch", "queue", "compute", "pending"];
    $("models").replaceChildren(models.length ? h("table", {},
      h("thead", {}, h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, t(`timing.${name}`))))),
      h("tbody", {}, ...models.map(([name, model]) => h("tr", {},
        h("th", { scope: "row" }, name),
        h("td", {}, cell(model.batch_mean, 1)),
        h("td", {}, cell(model.queue_ms, 1, " ms")),
        h("td", {}, cell(model.compute_ms, 1, " ms")),
        h("td", {}, cell(model.pending, 0)))))) : h("p", {}, t("timing.none")));
  }
}

const cell = (value, digits, unit = "") => (typeof value === "number" ? number(value, digits) + unit : "–");

function bar(name, { start, duration: length, busy }, whole) {
  const style = { left: `${(start / whole) * 100}%`, width: `${Math.max((length / whole) * 100, 0.4)}%` };
  return h("tr", { class: `stage-${name}` },
    h("th", { scope: "row" }, t(`stage.${name}`)),
    h("td", {}, h("span", { class: "track" }, h("span", { class: "span", style })),
      h("span", { class: "unseen" }, `${duration(start)} – ${duration(start + length)}`)),
    h("td", { class: "amount" }, duration(busy ?? length)));
}

function figure(label, value, help, lead = false) {
  return h("div", lead ? { class: "lead-figure" } : {}, h("dt", {}, label), h("dd", {}, value, help ? h("small", {}, help) : null));
}

function tile(name, value, words, history, least) {
  return h("section", { class: "card tile-figure" },
    h("h2", {}, t(`timing.tile.${name}`)),
    h("p", { class: "value" }, value),
    h("p", { class: "sub" }, t(`timing.tile.${name}.sub`, words)),
    spark(history, least));
}

function spark(values, least) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const top = Math.max(least, ...values);
  const points = values.map((value, i) => `${100 - (values.length - 1 - i) * (100 / (HISTORY - 1))},${24 - (value / top) * 22}`);
  line.setAttribute("points", points.join(" "));
  svg.setAttribute("viewBox", "0 0 100 26");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(line);
  return svg;
}
