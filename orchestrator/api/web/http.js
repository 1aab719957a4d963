// Requests to the service: problem documents become errors with a remedy; a key, when the server
// wants one, is asked for once and kept for this tab.

import { t } from "./i18n.js";

const KEY = "musetalk.key";

export class Problem extends Error {
  constructor({ detail, message, remedy = "", code = "", status = 0, retry_after: retryAfter = 0 }) {
    super(detail ?? message);
    Object.assign(this, { remedy, code, status, retryAfter });
  }
}

/** What is wrong when nobody answers. */
export const unreachable = () =>
  new Problem({ message: t("problem.network"), remedy: t("problem.network.remedy") });

let askForKey = async () => null;
let asking = null;
let declined = false;

/**
 * Set the function that asks the person for a key, told whether the one they gave was refused; it
 * resolves to null when they decline.
 */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export function key() {
  return sessionStorage.getItem(KEY) ?? undefined;
}

/**
 * True when there is another key than the one that was refused. Many requests can be refused at
 * once: the person is asked once for all, and not again after they declined.
 */
export async function renewKey(refused) {
  if (key() !== refused) return true;
  if (declined) return false;
  asking ??= askForKey(Boolean(refused)).finally(() => (asking = null));
  const given = await asking;
  if (given) sessionStorage.setItem(KEY, given);
  declined = !given;
  return Boolean(given);
}

function headers(extra = {}) {
  return key() ? { Authorization: `Bearer ${key()}`, ...extra } : extra;
}

/** A request; resolves to the parsed JSON (null when there is no body). */
export async function call(path, { method = "GET", json, form, headers: extra, signal } = {}) {
  const used = key();
  const init = { method, signal, headers: headers(extra) };
  if (json !== undefined) {
    init.body = JSON.stringify(json);
    init.headers["Content-Type"] = "application/json";
  } else if (form) init.body = form;
  const answer = await fetch(path, init).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  });
  if (answer.status === 401 && (await renewKey(used))) return call(path, { method, json, form, headers: extra, signal });
  const text = await answer.text();
  if (!answer.ok) throw refusal(answer.status, text);
  return text ? JSON.parse(text) : null;
}

/** Like a POST by `call`, with `onprogress(0..1)` while the body goes out; `signal` stops it. */
export function upload(path, form, onprogress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => onprogress(total ? loaded / total : 0);
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    request.onload = () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(refusal(request.status, request.responseText));
    };
    request.send(form);
  });
}

/** An address of media for `src`; with a key, which an element cannot send, of a copy in memory. */
export async function media(path) {
  if (!key()) return path;
  const answer = await fetch(path, { headers: headers() });
  if (!answer.ok) throw refusal(answer.status, await answer.text());
  return URL.createObjectURL(await answer.blob());
}

function refusal(status, text) {
  try {
    return new Problem({ status, ...JSON.parse(text) });
  } catch {
    return new Problem({ status, message: t("problem.status", { status }) });
  }
}
