// Making an avatar: the file, who agreed, how far it is, what was found or why it was refused.

import { avatarPath, cast } from "../cast.js";
import { $, dialogHead, h, openDialog, sentence, showProblem } from "../dom.js";
import { call, media, Problem, upload } from "../http.js";
import { percent, t } from "../i18n.js";

const POLL_MS = 500;
const UPLOAD_SHARE = 0.2;
/** Whether the file itself was refused; after other errors, the same file may do. */
const isJudged = ({ code, status }) => status === 413 || code === "bad_media" || code === "bad_avatar";

/** Open the dialog for a file. `next` has: again() to choose another file, talk(id). */
export function openCreate(file, next) {
  const dialog = $("create-dialog");
  const address = URL.createObjectURL(file);
  const closed = new AbortController();
  dialog.onclose = () => {
    closed.abort();
    URL.revokeObjectURL(address);
  };
  const head = (title) => dialogHead(dialog, "create-title", title, t("close"));
  const again = () => {
    dialog.close();
    next.again();
  };

  if (!/^(image|video)\//.test(file.type)) {
    const wrong = new Problem({ message: t("create.notMedia"), remedy: t("create.notMedia.remedy") });
    return openDialog(dialog, head(t("create.refused")), ...refused(wrong, again));
  }

  const unseen = () => (preview.parentElement.hidden = true); // a kind that only the server can read
  const preview = file.type.startsWith("video/")
    ? h("video", { src: address, autoplay: true, muted: true, loop: true, playsInline: true, onerror: unseen, "aria-label": t("create.preview") })
    : h("img", { src: address, onerror: unseen, alt: t("create.preview") });
  const name = h("input", { value: title(file.name), required: true, maxLength: 60, autofocus: true });
  const consent = h("input", { required: true, maxLength: 200, placeholder: t("create.consent.placeholder") });
  const agree = h("input", { type: "checkbox", required: true });

  const submit = async (event) => {
    event.preventDefault();
    const form = new FormData();
    form.append("name", name.value.trim());
    form.append("consent", consent.value.trim());
    form.append("file", file);
    const bar = h("progress", { max: 1, value: 0, "aria-labelledby": "create-step" });
    const step = h("p", { id: "create-step", role: "status" });
    const advance = (key, value, share) => {
      bar.value = share;
      step.textContent = t(key, { percent: percent(value) });
    };
    const picture = preview.cloneNode();
    if (picture.tagName === "VIDEO") picture.muted = true;
    const working = h("div", { class: "preview working", hidden: preview.parentElement.hidden }, picture);
    openDialog(dialog, head(name.value), working, bar, step);
    try {
      advance("create.uploading", 0, 0);
      let avatar = await upload("/v1/avatars", form, (part) => advance("create.uploading", part, part * UPLOAD_SHARE), closed.signal);
      while (avatar.status === "preparing" && !closed.signal.aborted) {
        advance("create.preparing", avatar.progress, UPLOAD_SHARE + avatar.progress * (1 - UPLOAD_SHARE));
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        avatar = await call(`/v1/avatars/${encodeURIComponent(avatar.id)}`);
      }
      await cast.refresh();
      if (closed.signal.aborted) return;
      if (avatar.status === "failed") throw new Problem(avatar.error);
      await showSheet(avatar, () => next.talk(avatar.id));
    } catch (error) {
      if (closed.signal.aborted) return;
      if (isJudged(error)) openDialog(dialog, head(t("create.refused")), ...refused(error, again));
      else openDialog(dialog, head(t("create.failed")), ...failed(error, ask));
    }
  };

  const field = (label, control, help) =>
    h("label", { class: "field" }, h("span", {}, label), control, help ? h("small", {}, help) : null);
  const form = h("form", { class: "form", onsubmit: submit },
    h("div", { class: "preview" }, preview),
    field(t("create.name"), name),
    field(t("create.consent"), consent, t("create.consent.help")),
    h("label", { class: "check" }, agree, h("span", {}, t("create.agree"))),
    h("footer", { class: "sheet-foot" },
      h("button", { class: "button", type: "button", onclick: () => dialog.close() }, t("cancel")),
      h("button", { class: "button primary" }, t("create.submit"))));
  const ask = () => openDialog(dialog, head(t("create.title")), form); // with what was filled in
  return ask();
}

/** Show the detected box and mask of an avatar; with `talk`, it was just made. */
export async function showSheet(avatar, talk = null) {
  const dialog = $("create-dialog");
  const name = cast.name(avatar.id);
  const image = h("img", { alt: t("create.sheet"), class: avatar.frames > 1 ? "sheet-image clip" : "sheet-image" });
  const notes = (avatar.notes ?? []).map((note) => h("li", { lang: "en" }, sentence(note)));
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  openDialog(dialog,
    dialogHead(dialog, "create-title", talk ? t("create.ready", { name }) : t("avatars.details", { name }), t("close")),
    h("figure", {}, image, h("figcaption", {}, t("create.sheet.caption"))),
    notes.length ? h("ul", { class: "notes" }, ...notes) : null, problem,
    talk ? h("footer", { class: "sheet-foot" },
      h("button", {
        class: "button primary", type: "button", autofocus: true,
        onclick: () => {
          dialog.close();
          talk();
        },
      }, t("avatars.talk", { name }))) : null);
  try {
    image.src = await media(avatarPath(avatar.id, "sheet.jpg"));
    image.onload = () => URL.revokeObjectURL(image.src);
  } catch (error) {
    showProblem(problem, error);
  }
}

function refused(error, again) {
  const problem = h("p", { class: "problem", role: "alert" });
  showProblem(problem, error);
  return [
    problem,
    h("h3", {}, t("create.tips")),
    h("ul", { class: "tips" }, ...[1, 2, 3].map((n) => h("li", {}, t(`create.tip.${n}`)))),
    h("footer", { class: "sheet-foot" },
      h("button", { class: "button primary", type: "button", autofocus: true, onclick: again }, t("create.another"))),
  ];
}

function failed(error, again) {
  const problem = h("p", { class: "problem", role: "alert" });
  showProblem(problem, error);
  return [
    problem,
    h("footer", { class: "sheet-foot" },
      h("button", { class: "button primary", type: "button", autofocus: true, onclick: again }, t("create.again"))),
  ];
}

function title(file) {
  const stem = file.replace(/\.[^.]*$/, "").replace(/[_-]+/g, " ").trim().slice(0, 40);
  return stem.charAt(0).toUpperCase() + stem.slice(1);
}
