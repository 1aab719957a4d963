// Puts the page together: which view is open, the language, the one session.

import { $, dialogHead, h, openDialog } from "./dom.js";
import { cast } from "./cast.js";
import { onKeyNeeded } from "./http.js";
import { language, onLanguage, setLanguage, t, translate } from "./i18n.js";
import { Player } from "./player.js";
import { avatarChoices, preferences } from "./preferences.js";
import { Session } from "./session.js";
import { AvatarsView } from "./views/avatars.js";
import { TalkView } from "./views/talk.js";
import { TimingView } from "./views/timing.js";
import { VideosView } from "./views/videos.js";
import { speech } from "./voices.js";

const player = new Player($("live"), $("still"));
const session = new Session(player, async () => {
  await speech.load();
  const { voice, prompt, profile } = avatarChoices(preferences.avatar ?? "");
  const choices = { profile, language: speech.language };
  if (preferences.avatar) choices.avatar = preferences.avatar;
  if (voice) choices.voice = voice;
  if (prompt) choices.system_prompt = prompt;
  return choices;
});

const talk = new TalkView(session, player);
const views = {
  talk,
  avatars: new AvatarsView(talk),
  videos: new VideosView(),
  timing: new TimingView(session, player),
};

function route() {
  const name = views[location.hash.slice(1)] ? location.hash.slice(1) : "talk";
  for (const [other, view] of Object.entries(views)) {
    const shown = other === name;
    if (!$(`view-${other}`).hidden && !shown) view.hide?.();
    $(`view-${other}`).hidden = !shown;
  }
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${t(`nav.${name}`)} · MuseTalk Studio`;
  views[name].show?.();
  scrollTo(0, 0);
}

onKeyNeeded(() => new Promise((resolve) => {
  const dialog = $("key-dialog");
  const input = h("input", { type: "password", id: "key", required: true, autofocus: true, autocomplete: "off" });
  const form = h("form", { method: "dialog", class: "form", onsubmit: () => resolve(input.value) },
    h("label", { class: "field" }, h("span", {}, t("key.label")), input, h("small", {}, t("key.help"))),
    h("button", { class: "button primary" }, t("key.use")));
  dialog.onclose = () => resolve(null);
  openDialog(dialog, dialogHead(dialog, "key-title", t("key.title"), t("close")), form);
}));

onLanguage(() => {
  document.documentElement.lang = $("language").value = language();
  translate(document);
  document.title = `${t(`nav.${location.hash.slice(1) || "talk"}`)} · MuseTalk Studio`;
});
$("language").addEventListener("change", () => setLanguage($("language").value));
addEventListener("hashchange", route);
route();

cast.refresh().catch(() => {});
if (Player.supported) session.connect();
