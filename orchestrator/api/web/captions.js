// Which words belong to a moment. A sentence can be long; a caption is at most two lines of it,
// in time with how far the speech is.

const LONGEST = 84;
const LINGER_SECONDS = 0.25;

const pieces = new Map();
const KEPT = 60;

/** The caption at a media time, out of `{ text, start, end }`; empty when nobody speaks. */
export function captionAt(captions, time) {
  const line = captions.find(({ start, end }) => time >= start && time < end + LINGER_SECONDS);
  if (!line) return "";
  const parts = split(line.text);
  const said = Math.min(0.999, (time - line.start) / Math.max(line.end - line.start, 0.01)) * line.text.length;
  let length = 0;
  return parts.find((part) => (length += part.length + 1) > said) ?? parts.at(-1);
}

/** Cut a text into parts of similar length, at commas where that is possible. */
export function split(text) {
  if (pieces.has(text)) return pieces.get(text);
  const parts = [];
  let rest = text.trim();
  while (rest.length > LONGEST) {
    const wanted = Math.ceil(rest.length / Math.ceil(rest.length / LONGEST));
    const window = rest.slice(0, LONGEST);
    const comma = Math.max(window.lastIndexOf(", "), window.lastIndexOf("; "), window.lastIndexOf(": "));
    let at = comma > wanted / 2 ? comma + 1 : window.lastIndexOf(" ", wanted + 8);
    if (at <= 0) at = LONGEST;
    parts.push(rest.slice(0, at).trim());
    rest = rest.slice(at).trim();
  }
  parts.push(rest);
  if (pieces.size >= KEPT) pieces.delete(pieces.keys().next().value);
  pieces.set(text, parts);
  return parts;
}
