// What was said, turn by turn.

import { $, h } from "../dom.js";
import { duration, t } from "../i18n.js";

const KEPT = 60;

export class Log {
  #session;
  #items = new Map();

  constructor(session) {
    this.#session = session;
    for (const event of ["turn", "performance"]) {
      session.addEventListener(event, ({ detail }) => this.#update(detail.id));
    }
    session.addEventListener("transcript", ({ detail }) => this.#update(detail.turn));
  }

  clear() {
    this.#items.clear();
    $("log").replaceChildren();
  }

  words() {
    for (const id of this.#items.keys()) this.#update(id);
  }

  #update(id) {
    const turn = this.#session.turns.get(id);
    if (!turn) return;
    const log = $("log");
    let item = this.#items.get(id);
    if (!item) {
      item = h("li", {});
      this.#items.set(id, item);
      log.append(item);
      if (this.#items.size > KEPT) {
        const [oldest, element] = this.#items.entries().next().value;
        element.remove();
        this.#items.delete(oldest);
      }
    }
    const low = log.scrollHeight - log.scrollTop - log.clientHeight < 120;
    // Only what changed is touched: screen readers read out what is put into a log, and a link in
    // it may have the focus.
    const content = this.#content(turn);
    content.forEach((element, i) => {
      const there = item.children[i];
      if (!there) item.append(element);
      else if (!there.isEqualNode(element)) there.replaceWith(element);
    });
    while (item.children.length > content.length) item.lastElementChild.remove();
    if (low) log.scrollTop = log.scrollHeight;
  }

  #content(turn) {
    const lines = (role) => [...turn.lines.values()].filter((line) => line.role === role)
      .sort((a, b) => a.index - b.index).map(({ text }) => text).join(" ");
    const asked = turn.mode === "speech" ? lines("user") || t("rail.yourVoice")
      : turn.mode === "ask" ? turn.text : lines("user");
    const said = lines("avatar") || (turn.mode === "say" ? turn.text : "");
    const content = [];
    if (asked) content.push(h("p", { class: "you" }, h("span", { class: "unseen" }, `${t("rail.you")}: `), asked));
    if (said) content.push(h("p", { class: "said" }, said));
    if (turn.shown !== null) {
      content.push(h("p", { class: "meta" }, h("a", { href: "#timing" }, t("rail.firstFrame", { time: duration(turn.shown) }))));
    }
    return content;
  }
}
