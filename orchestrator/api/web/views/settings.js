// How one avatar speaks: voice, instructions, quality; and the notice on the video.

import { cast } from "../cast.js";
import { $, dialogHead, h, openDialog } from "../dom.js";
import { t } from "../i18n.js";
import { avatarChoices, preferences, remember, rememberForAvatar } from "../preferences.js";
import { speech } from "../voices.js";

const PROFILES = ["quality", "economy", "classic"];
const LONGEST_PROMPT = 4000;

/** Open the dialog; `talk` is the view to start again when something changed. */
export function openSettings(id, talk) {
  const dialog = $("settings-dialog");
  const choices = avatarChoices(id);
  const option = (value, label, chosen) => h("option", { value, selected: value === chosen }, label);
  const voice = h("select", { autofocus: true },
    option("", t("settings.voice.default"), choices.voice),
    ...speech.voices.map(({ id: value, name, language }) =>
      option(value, language ? `${name} (${language})` : name, choices.voice)));
  const prompt = h("textarea", { rows: 4, maxLength: LONGEST_PROMPT, placeholder: t("settings.prompt.placeholder") });
  prompt.value = choices.prompt;
  const profile = h("select", {}, ...PROFILES.map((name) => option(name, t(`profile.${name}`), choices.profile)));
  const notice = h("input", { type: "checkbox", checked: preferences.notice });

  const save = () => {
    remember({ notice: notice.checked });
    const chosen = { voice: voice.value, prompt: prompt.value.trim(), profile: profile.value };
    const changed = Object.keys(chosen).some((name) => chosen[name] !== choices[name]);
    rememberForAvatar(id, chosen);
    if (changed && id === talk.avatar) talk.choose(id);
    else talk.refresh();
  };
  const field = (label, control, help) =>
    h("label", { class: "field" }, h("span", {}, label), control, help ? h("small", {}, help) : null);

  openDialog(dialog,
    dialogHead(dialog, "settings-title", t("settings.title", { name: cast.name(id) }), t("close")),
    h("form", { method: "dialog", class: "form", onsubmit: save },
      field(t("settings.voice"), voice),
      field(t("settings.prompt"), prompt, t(speech.llm ? "settings.prompt.help" : "settings.prompt.embedded")),
      field(t("settings.profile"), profile),
      h("label", { class: "check" }, notice, h("span", {}, t("settings.notice"))),
      h("footer", { class: "sheet-foot" },
        h("small", {}, t("settings.note")),
        h("button", { class: "button", type: "button", onclick: () => dialog.close() }, t("cancel")),
        h("button", { class: "button primary" }, t("save")))));
}
