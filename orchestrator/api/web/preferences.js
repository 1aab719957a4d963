// What this person chose, kept in this browser.

const NAME = "musetalk.studio";
const PER_AVATAR = { voice: "", prompt: "", profile: "quality" };

let stored = {};
try {
  stored = JSON.parse(localStorage.getItem(NAME)) ?? {};
} catch {
  // Storage can be switched off; choices then last as long as the page.
}

export const preferences = {
  language: undefined,
  avatar: undefined,
  mode: "say",
  notice: true,
  captions: true,
  avatars: {},
  ...stored,
};

export function remember(changes) {
  Object.assign(preferences, changes);
  try {
    localStorage.setItem(NAME, JSON.stringify(preferences));
  } catch {
    // as above
  }
}

export function avatarChoices(id) {
  return { ...PER_AVATAR, ...preferences.avatars[id] };
}

export function rememberForAvatar(id, choices) {
  remember({ avatars: { ...preferences.avatars, [id]: { ...avatarChoices(id), ...choices } } });
}

export function forgetAvatar(id) {
  const { [id]: _, ...avatars } = preferences.avatars;
  remember({ avatars, avatar: preferences.avatar === id ? undefined : preferences.avatar });
}
