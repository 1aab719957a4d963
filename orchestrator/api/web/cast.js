// The avatars of the server, shared by all views.

import { call } from "./http.js";

const PREPARING_MS = 800;

export const cast = new (class Cast extends EventTarget {
  #timer = 0;

  avatars = [];
  loaded = false;

  find(id) {
    return this.avatars.find((avatar) => avatar.id === id);
  }

  name(id) {
    const name = this.find(id)?.name ?? id ?? "";
    return name.charAt(0).toUpperCase() + name.slice(1);
  }

  get ready() {
    return this.avatars.filter(({ status }) => status === "ready");
  }

  /** Read the list, and again while one is being prepared. */
  async refresh() {
    clearTimeout(this.#timer);
    const { avatars } = await call("/v1/avatars");
    this.avatars = avatars;
    this.loaded = true;
    this.dispatchEvent(new Event("change"));
    if (avatars.some(({ status }) => status === "preparing")) {
      this.#timer = setTimeout(() => this.refresh().catch(() => {}), PREPARING_MS);
    }
  }

  async remove(id) {
    await call(`/v1/avatars/${encodeURIComponent(id)}`, { method: "DELETE" });
    await this.refresh();
  }
})();

export const avatarPath = (id, part) => `/v1/avatars/${encodeURIComponent(id)}/${part}`;
