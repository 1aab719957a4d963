// Puts the page together: which view is open, the language, the one session.

import { $, dialogHead, h, openDialog, showProblem } from "./dom.js";
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

const viewName = () => (views[location.hash.slice(1)] ? location.hash.slice(1) : "talk");
const title = () => (document.title = `${t(`nav.${viewName()}`)} · MuseTalk Studio`);

function route() {
  const name = viewName();
  for (const [other, view] of Object.entries(views)) {
    const shown = other === name;
    if (!$(`view-${other}`).hidden && !shown) view.hide?.();
    $(`view-${other}`).hidden = !shown;
  }
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  title();
  views[name].show?.();
  scrollTo(0, 0);
}

onKeyNeeded((refused) => new Promise((resolve) => {
  const dialog = $("key-dialog");
  const wrong = h("p", { class: "problem", role: "alert" });
  showProblem(wrong, refused ? { message: t("key.refused") } : null);
  const input = h("input", { type: "password", id: "key", required: true, autofocus: true, autocomplete: "off" });
  const form = h("form", { method: "dialog", class: "form", onsubmit: () => resolve(input.value) },
    h("label", { class: "field" }, h("span", {}, t("key.label")), input, h("small", {}, t("key.help"))),
    h("button", { class: "button primary" }, t("key.use")));
  // The end of the dialog before may be told only now, when the next one is already open.
  dialog.onclose = () => dialog.open || resolve(null);
  openDialog(dialog, dialogHead(dialog, "key-title", t("key.title"), t("close")), wrong, form);
}));

onLanguage(() => {
  document.documentElement.lang = $("language").value = language();
  translate(document);
  title();
});
$("language").addEventListener("change", () => setLanguage($("language").value));
addEventListener("hashchange", route);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  location.hash = "#talk";
  route(); // now: what is hidden cannot have the focus
  $("message").focus();
});
route();

cast.refresh().catch(() => {});
if (Player.supported) session.connect();
