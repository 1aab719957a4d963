// The avatars: a gallery with moving pictures, making one from a picture or a video, deleting.

import { avatarPath, cast } from "../cast.js";
import { $, dialogHead, h, icon, openDialog, showProblem } from "../dom.js";
import { media, Problem } from "../http.js";
import { number, onLanguage, percent, t } from "../i18n.js";
import { forgetAvatar } from "../preferences.js";
import { openCreate, showSheet } from "./create.js";
import { openSettings } from "./settings.js";

export class AvatarsView {
  #talk;
  #shown = false;
  #key = "";
  #copies = []; // addresses that media() may have made, to be given back
  #seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) target.play().catch(() => {});
      else target.pause();
    }
  });

  constructor(talk) {
    this.#talk = talk;
    cast.addEventListener("change", () => {
      showProblem($("avatars-problem"), null);
      if (this.#shown) this.#draw();
    });
    $("avatar-file").addEventListener("change", () => {
      const [file] = $("avatar-file").files;
      $("avatar-file").value = "";
      if (file) this.#create(file);
    });
    this.#bindDrop();
    onLanguage(() => this.#shown && this.#draw(true));
  }

  show() {
    this.#shown = true;
    this.#draw(true);
    cast.refresh().catch((error) => showProblem($("avatars-problem"), error));
  }

  hide() {
    this.#shown = false;
    this.#clear();
  }

  #clear() {
    this.#seen.disconnect();
    $("gallery").replaceChildren();
    for (const address of this.#copies.splice(0)) URL.revokeObjectURL(address);
  }

  #create(file) {
    openCreate(file, {
      again: () => $("avatar-file").click(),
      talk: (id) => this.#meet(id),
    });
  }

  #meet(id) {
    location.hash = "#talk";
    this.#talk.choose(id);
    $("message").focus();
  }

  #bindDrop() {
    const files = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
    const over = (on) => $("drop").classList.toggle("on", on);
    const wanted = () => !document.querySelector("dialog[open]");
    addEventListener("dragenter", (event) => files(event) && wanted() && over(true));
    addEventListener("dragleave", ({ relatedTarget }) => relatedTarget || over(false)); // to nothing: out
    addEventListener("dragover", (event) => files(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      over(false);
      if (wanted()) this.#create(event.dataTransfer.files[0]);
    });
  }

  #draw(anyway = false) {
    const key = JSON.stringify(cast.avatars.map(({ id, status, progress }) => [id, status, progress]));
    if (!anyway && key === this.#key) return;
    this.#key = key;
    this.#clear();
    $("gallery").append(...cast.avatars.map((avatar) => this.#card(avatar)), this.#newCard());
  }

  #newCard() {
    return h("li", { class: "tile-new" },
      h("button", { type: "button", onclick: () => $("avatar-file").click() },
        icon("plus"), h("strong", {}, t("avatars.new")), h("span", {}, t("avatars.new.hint"))));
  }

  #card(avatar) {
    const { id, status } = avatar;
    const name = cast.name(id);
    const ready = status === "ready";
    const action = (label, symbol, onclick) =>
      h("button", { type: "button", class: "round", "aria-label": label, title: label, onclick }, icon(symbol));
    return h("li", { class: `tile ${status}` },
      h("div", { class: "tile-picture" },
        ready ? this.#preview(id) : h("div", { class: "tile-wait" }, icon("face")),
        status === "preparing" ? progress(avatar.progress) : null),
      h("div", { class: "tile-text" },
        h("h2", {}, name),
        h("p", {}, this.#description(avatar))),
      status === "failed" ? problemOf(avatar) : null,
      h("div", { class: "tile-actions" },
        ready ? h("button", { type: "button", class: "button primary", "aria-label": t("avatars.talk", { name }), onclick: () => this.#meet(id) },
          t("avatars.talk.short")) : null,
        ready ? action(t("avatars.settings", { name }), "tune", () => openSettings(id, this.#talk)) : null,
        ready ? action(t("avatars.details", { name }), "face", () => showSheet(avatar)) : null,
        !avatar.deletable || status === "preparing" ? null
          : action(t("avatars.delete", { name }), "trash", () => this.#askDelete(avatar))));
  }

  #preview(id) {
    const video = h("video", { muted: true, loop: true, playsInline: true, preload: "none", tabindex: "-1", "aria-hidden": "true" });
    this.#fetch(id, "poster.jpg", (source) => (video.poster = source));
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.#fetch(id, "preview.mp4", (source) => {
        video.src = source;
        this.#seen.observe(video);
      });
    }
    return video;
  }

  #fetch(id, part, use) {
    media(avatarPath(id, part)).then((source) => {
      this.#copies.push(source);
      use(source);
    }).catch(() => {});
  }

  #description({ status, progress: done, width, height, fps, frames }) {
    if (status === "preparing") return t("avatars.preparing", { percent: percent(done ?? 0) });
    if (status === "failed") return t("avatars.failed");
    if (!frames) return "";
    const clip = t("avatars.frames", { count: frames, seconds: `${number(frames / fps, frames / fps < 10 ? 1 : 0)} s` });
    return `${clip} · ${width} × ${height}`;
  }

  #askDelete({ id }) {
    const dialog = $("create-dialog");
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const remove = async () => {
      try {
        await cast.remove(id);
        forgetAvatar(id);
        dialog.close();
        if (this.#talk.avatar === id) this.#talk.choose(cast.ready[0]?.id);
      } catch (error) {
        showProblem(problem, error);
      }
    };
    openDialog(dialog,
      dialogHead(dialog, "create-title", t("avatars.delete.title", { name: cast.name(id) }), t("close")),
      h("p", {}, t("avatars.delete.text")), problem,
      h("footer", { class: "sheet-foot" },
        h("button", { class: "button", type: "button", autofocus: true, onclick: () => dialog.close() }, t("cancel")),
        h("button", { class: "button danger", type: "button", onclick: remove }, t("avatars.delete.yes"))));
  }
}

function progress(value) {
  return h("progress", { max: 1, value: value ?? 0, "aria-label": t("avatars.preparing", { percent: "" }) });
}

function problemOf({ error }) {
  const paragraph = h("p", { class: "problem" });
  if (error) showProblem(paragraph, new Problem(error));
  return paragraph;
}
