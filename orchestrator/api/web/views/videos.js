// Video jobs: the form, the list with moving progress, the player.

import { cast } from "../cast.js";
import { $, dialogHead, h, icon, openDialog, showProblem } from "../dom.js";
import { call, key, media, Problem } from "../http.js";
import { duration, moment, onLanguage, percent, t } from "../i18n.js";
import { preferences } from "../preferences.js";
import { speech } from "../voices.js";

const POLL_MS = 700;
const IDLE_POLL_MS = 5000;
const UNDER_WAY = new Set(["queued", "running"]);
const KEPT_TITLES = 200;
const TITLES = "musetalk.videos";

export class VideosView {
  #jobs = [];
  #items = new Map();
  #timer = 0;
  #shown = false;
  #unread = false; // whether the problem that is shown is that the list could not be read

  constructor() {
    const form = $("video-form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#create();
    });
    for (const input of form.elements.kind) input.addEventListener("change", () => this.#words());
    cast.addEventListener("change", () => this.#words());
    onLanguage(() => {
      this.#words();
      this.#items.clear();
      if (this.#shown) this.#draw();
    });
  }

  show() {
    this.#shown = true;
    this.#words();
    this.#poll();
  }

  hide() {
    this.#shown = false;
    clearTimeout(this.#timer);
  }

  #words() {
    const { kind, avatar } = $("video-form").elements;
    $("video-text-field").hidden = kind.value === "audio";
    $("video-audio-field").hidden = kind.value !== "audio";
    $("video-text-label").textContent = t(kind.value === "message" ? "videos.message" : "videos.text");
    const chosen = avatar.value || preferences.avatar;
    avatar.replaceChildren(...cast.ready.map(({ id }) => h("option", { value: id, selected: id === chosen }, cast.name(id))));
  }

  async #create() {
    const { kind, text, audio, avatar, profile } = $("video-form").elements;
    const recording = kind.value === "audio";
    if (recording ? !audio.files.length : !text.value.trim()) return (recording ? audio : text).focus();
    // The same key is sent again should the browser repeat the request: one job, not two.
    const headers = { "Idempotency-Key": [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("") };
    const choices = { avatar: avatar.value, profile: profile.value };
    const button = $("video-form").querySelector('[type="submit"]');
    button.disabled = true;
    try {
      this.#problem(null);
      let job;
      if (recording) {
        const form = new FormData();
        form.append("audio", audio.files[0]);
        for (const [name, value] of Object.entries(choices)) form.append(name, value);
        job = await call("/v1/videos", { method: "POST", form, headers });
      } else {
        job = await call("/v1/videos", { method: "POST", json: { [kind.value]: text.value.trim(), language: speech.language, ...choices }, headers });
      }
      keepTitle(job.id, recording ? audio.files[0].name : text.value.trim());
      text.value = "";
      audio.value = "";
      await this.#poll();
    } catch (error) {
      this.#problem(error);
    } finally {
      button.disabled = false;
    }
    return undefined;
  }

  #problem(error) {
    this.#unread = false;
    showProblem($("video-problem"), error);
  }

  async #poll() {
    clearTimeout(this.#timer);
    try {
      const answer = await call("/v1/videos");
      this.#jobs = answer.videos;
      this.#draw();
      if (this.#unread) this.#problem(null);
    } catch (error) {
      this.#problem(error);
      this.#unread = true;
    }
    if (!this.#shown) return;
    const soon = this.#jobs.some(({ status }) => UNDER_WAY.has(status));
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#poll(), soon ? POLL_MS : IDLE_POLL_MS);
  }

  #draw() {
    if (!this.#jobs.length) {
      this.#items.clear();
      return $("jobs").replaceChildren(h("li", { class: "empty" }, icon("film"), h("p", {}, t("videos.empty"))));
    }
    const items = this.#jobs.map((job) => {
      const known = this.#items.get(job.id);
      if (known && known.status === job.status) {
        known.update(job);
        return known.element;
      }
      const item = this.#item(job);
      this.#items.set(job.id, { ...item, status: job.status });
      return item.element;
    });
    for (const [id, { element }] of this.#items) if (!items.includes(element)) this.#items.delete(id);
    // Only what changed is touched, so that focus and screen readers keep their place.
    const list = $("jobs");
    for (const child of [...list.children]) if (!items.includes(child)) child.remove();
    items.forEach((element, i) => list.children[i] !== element && list.insertBefore(element, list.children[i] ?? null));
    return undefined;
  }

  #item(job) {
    const bar = h("progress", { max: 1, value: job.progress ?? 0, "aria-label": t("videos.running") });
    const state = h("span", { class: `badge ${job.status}` });
    const detail = h("span", { class: "job-detail" });
    const act = (path, method) => async () => {
      try {
        await call(path, { method });
        await this.#poll();
      } catch (error) {
        this.#problem(error);
      }
    };
    const path = `/v1/videos/${encodeURIComponent(job.id)}`;
    const small = (label, symbol, onclick) =>
      h("button", { type: "button", class: "round", "aria-label": label, title: label, onclick }, icon(symbol));
    const actions = UNDER_WAY.has(job.status)
      ? [small(t("videos.cancel"), "stop", act(`${path}/cancel`, "POST"))]
      : [
        ...(job.status === "succeeded" ? [
          h("button", { type: "button", class: "button", onclick: () => this.#watch(job) }, icon("play"), t("videos.watch")),
          this.#download(`${path}/content`, `${job.id}.mp4`, t("videos.mp4")),
          this.#download(`${path}/captions.vtt`, `${job.id}.vtt`, t("videos.vtt")),
        ] : []),
        small(t("videos.delete"), "trash", act(path, "DELETE")),
      ];
    const problem = h("p", { class: "problem", hidden: true });
    if (job.error) showProblem(problem, new Problem(job.error));
    const element = h("li", { class: "card job" },
      h("div", { class: "job-head" }, h("p", { class: "job-title" }, titleOf(job)), state),
      detail,
      UNDER_WAY.has(job.status) ? bar : null,
      problem,
      h("div", { class: "job-actions" }, ...actions));
    const update = (now) => {
      bar.value = now.progress ?? 0;
      const stage = now.stage && t(`stage.${now.stage}`) !== `stage.${now.stage}` ? ` · ${t(`stage.${now.stage}`)}` : "";
      state.textContent = now.status === "running" ? percent(now.progress ?? 0) : t(`videos.${now.status}`);
      detail.textContent = [
        cast.name(now.avatar),
        moment(now.created),
        now.duration ? duration(now.duration) : null,
      ].filter(Boolean).join(" · ") + (UNDER_WAY.has(now.status) ? stage : "");
    };
    update(job);
    return { element, update };
  }

  #download(path, name, label) {
    const link = h("a", { class: "button", href: path, download: name, "aria-label": label }, icon("download"), name.endsWith("vtt") ? "VTT" : "MP4");
    link.addEventListener("click", async (event) => {
      if (!key() || link.href.startsWith("blob:")) return;
      event.preventDefault(); // a link cannot send the key
      try {
        link.href = await media(path);
        link.click();
        URL.revokeObjectURL(link.href);
        link.href = path;
      } catch (error) {
        this.#problem(error);
      }
    });
    return link;
  }

  async #watch(job) {
    const dialog = $("player-dialog");
    const path = `/v1/videos/${encodeURIComponent(job.id)}`;
    const track = h("track", { kind: "captions", label: t("videos.subtitles"), default: true, srclang: document.documentElement.lang });
    const video = h("video", { controls: true, playsInline: true, autofocus: true }, track);
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    dialog.onclose = () => {
      video.pause();
      for (const { src } of [video, track]) URL.revokeObjectURL(src);
      dialog.replaceChildren();
    };
    openDialog(dialog, dialogHead(dialog, "player-title", t("videos.player", { name: cast.name(job.avatar) }), t("close")), video,
      h("p", { class: "transcript" }, titleOf(job)), problem);
    try {
      [track.src, video.src] = await Promise.all([media(`${path}/captions.vtt`), media(`${path}/content`)]);
      video.play().catch(() => {});
    } catch (error) {
      showProblem(problem, error);
    }
  }
}

function titles() {
  try {
    return JSON.parse(localStorage.getItem(TITLES)) ?? {};
  } catch {
    return {};
  }
}

/** The server may not repeat what was asked for; this browser remembers its own requests. */
function keepTitle(id, text) {
  const kept = Object.fromEntries([...Object.entries(titles()), [id, text.slice(0, 300)]].slice(-KEPT_TITLES));
  try {
    localStorage.setItem(TITLES, JSON.stringify(kept));
  } catch {
    // Without storage the list says only what kind it is.
  }
}

function titleOf(job) {
  return titles()[job.id] ?? t(`videos.kind.${job.kind}`);
}
