// The live video: Media Source Extensions over fragments that a session sends. One timeline,
// which the server owns; the player only follows its edge.

const KEPT_SECONDS = 12; // behind the playhead
const TRIM_AT_SECONDS = 24;
const TICK_MS = 50;
const READ_AHEAD_SECONDS = 0.7; // what a browser may have taken out of the buffer already
const JOINT_SECONDS = 0.08;
const JOINT_WAIT_MS = 150; // a picture that stands still this long before a cut gets no further
const HUSHED_SECONDS = 1; // at most, should the server not cut
const STUCK_MS = 400;
const ENOUGH_SECONDS = 0.15; // ahead: a browser that ran dry would wait for more than it needs
const HIDDEN_BACKLOG_SECONDS = 2.5;
const STALLS_KEPT = 100;
const SEEN_MS = 100; // a seek waits as well, for less than a picture or two

const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;

export class Player {
  #video;
  #still;
  #source = null;
  #buffer = null;
  #jobs = [];
  #placed = false;
  #stalledAt = 0;
  #cleared = 0; // until where it is silent after an interruption
  #joint = null; // where new media replaces what the decoder may have read already
  #moved = { time: 0, at: 0 };
  #nudged = null; // where it was last made to go on
  #watchers = [];

  /** Called about twenty times a second with the media time. */
  ontick = () => {};
  /** Called when the browser refuses to play with sound. */
  onmuted = () => {};
  /** Times (ms) for which the picture was seen to stand still for want of data. */
  stalls = [];

  constructor(video, still) {
    this.#video = video;
    this.#still = still;
    video.disableRemotePlayback = true;
    video.addEventListener("waiting", () => (this.#stalledAt ||= performance.now()));
    video.addEventListener("playing", () => this.#resumed());
    setInterval(() => this.#tick(), TICK_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.#catchUp());
  }

  static get supported() {
    return Source !== undefined;
  }

  get time() {
    return this.#video.currentTime;
  }

  /** Seconds of media from the playhead on. */
  get ahead() {
    const end = this.#end();
    return end === null ? 0 : Math.max(0, end - this.time);
  }

  get muted() {
    return this.#video.muted;
  }

  set muted(value) {
    this.#video.muted = value;
    this.#play();
  }

  /** A new timeline. The last picture stays until the first new one is there. */
  start(mime, init) {
    this.#keepPicture();
    this.#drop();
    const source = new Source();
    this.#source = source;
    this.#jobs = [{ act: (buffer) => buffer.appendBuffer(init) }];
    const address = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => {
      URL.revokeObjectURL(address);
      if (source !== this.#source) return;
      this.#buffer = source.addSourceBuffer(mime);
      this.#buffer.addEventListener("updateend", () => {
        this.#pump();
        if (this.#stalledAt && this.#placed) this.#mend();
      });
      this.#pump();
    }, { once: true });
    this.#video.src = address;
    this.#play();
  }

  /** Add a fragment; `done` is called when the browser holds it, or it is not wanted any more. */
  append({ data, start }, done) {
    this.#jobs.push({ start, done, act: (buffer) => buffer.appendBuffer(data) });
    this.#pump();
  }

  /** Forget everything from a moment on; what follows replaces it. */
  flush(from) {
    this.#jobs = this.#jobs.filter((job) => {
      if (!(job.start >= from)) return true;
      job.done?.();
      return false;
    });
    const near = from - this.time < READ_AHEAD_SECONDS;
    const done = () => near && (this.#joint = from);
    this.#jobs.push({ act: (buffer) => buffer.remove(from, Infinity), done });
    this.#cleared = from;
    for (const watcher of this.#watchers) if (watcher.at >= from) watcher.at = Infinity;
    this.#pump();
  }

  /** Silence at once, until the server's cut is reached. */
  hush() {
    this.#video.volume = 0;
    this.#cleared = this.time + HUSHED_SECONDS;
  }

  /** Call `seen(now)` when the frame at a media time is on the screen. */
  whenShown(at, seen) {
    this.#watchers.push({ at, seen });
    if (this.#watchers.length === 1) this.#watch();
  }

  #watch() {
    const video = this.#video;
    const check = (now, { mediaTime }) => {
      this.#watchers = this.#watchers.filter(({ at, seen }) => {
        if (at === Infinity) return false;
        if (mediaTime + 1e-3 < at) return true;
        seen(now);
        return false;
      });
      if (this.#watchers.length) video.requestVideoFrameCallback(check);
    };
    video.requestVideoFrameCallback?.(check);
  }

  #pump() {
    const buffer = this.#buffer;
    if (!buffer || buffer.updating) return;
    const job = this.#jobs.shift();
    if (!job) return this.#place();
    buffer.addEventListener("updateend", () => job.done?.(), { once: true });
    try {
      job.act(buffer);
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      this.#jobs.unshift(job);
      buffer.remove(0, Math.max(this.time - 1, 0.1));
    }
  }

  #place() {
    if (this.#placed || !this.#buffer.buffered.length) return;
    this.#placed = true;
    this.#video.currentTime = this.#buffer.buffered.start(0);
    this.#video.requestVideoFrameCallback?.(() => this.#still.classList.remove("on"));
    this.#play();
  }

  #tick() {
    const video = this.#video;
    if (this.#buffer && this.#placed) {
      this.#leap();
      this.#mend();
      if (video.paused && !document.hidden) this.#play();
      const { buffered } = this.#buffer;
      if (buffered.length && this.time - buffered.start(0) > TRIM_AT_SECONDS) {
        const end = this.time - KEPT_SECONDS;
        this.#jobs.push({ act: (buffer) => buffer.remove(0, end) });
        this.#pump();
      }
      if (video.volume < 1 && this.time >= this.#cleared && this.#joint === null) video.volume = 1;
    }
    this.ontick(this.time);
  }

  /** Over a hole in the timeline, which a player would wait at for ever. */
  #leap() {
    const { buffered } = this.#buffer;
    for (let i = 0; i < buffered.length; i++) {
      if (this.time >= buffered.start(i) && this.time < buffered.end(i) - 0.05) return;
    }
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) > this.time) {
        this.#video.currentTime = buffered.start(i) + 0.001;
        return;
      }
    }
  }

  /**
   * A decoder that has read past a cut waits for the next key frame after it, which may be far
   * away. Seeking to the cut, where there is one, lets it go on there, and no word is lost.
   */
  #mend() {
    const now = performance.now();
    if (this.time !== this.#moved.time || this.#video.paused) this.#moved = { time: this.time, at: now };
    const joint = this.#joint;
    if (joint !== null) {
      const arrived = this.time >= joint - 0.04 || now - this.#moved.at > JOINT_WAIT_MS;
      if (!arrived || !this.#holds(joint)) return;
      this.#joint = null;
      this.#video.currentTime = joint;
    } else if (this.#isStuck(now)) {
      this.#nudged = this.time;
      this.#video.currentTime = this.time;
    } else return;
    this.#moved.at = now;
  }

  #isStuck(now) {
    if (this.#video.seeking) return false;
    if (now - this.#moved.at > STUCK_MS) return this.#holds(this.time);
    const dry = this.#stalledAt && this.#nudged !== this.time;
    return dry && this.#holds(this.time, ENOUGH_SECONDS);
  }

  #holds(time, seconds = JOINT_SECONDS) {
    const { buffered } = this.#buffer;
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) <= time + 0.001 && buffered.end(i) >= time + seconds) return true;
    }
    return false;
  }

  #catchUp() {
    const end = this.#end();
    if (end !== null && end - this.time > HIDDEN_BACKLOG_SECONDS) this.#video.currentTime = end - 0.4;
    this.#play();
  }

  #end() {
    const ranges = this.#buffer?.buffered;
    return ranges?.length ? ranges.end(ranges.length - 1) : null;
  }

  #play() {
    this.#video.play().catch((error) => {
      if (error.name !== "NotAllowedError" || this.#video.muted) return;
      this.#video.muted = true;
      this.onmuted();
      this.#play();
    });
  }

  #resumed() {
    const lasted = performance.now() - this.#stalledAt;
    if (this.#stalledAt && this.#placed && lasted > SEEN_MS) {
      this.stalls.push(lasted);
      if (this.stalls.length > STALLS_KEPT) this.stalls.shift();
    }
    this.#stalledAt = 0;
  }

  #keepPicture() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (!width) return;
    Object.assign(this.#still, { width, height });
    this.#still.getContext("2d").drawImage(this.#video, 0, 0);
    this.#still.classList.add("on");
  }

  #drop() {
    for (const job of this.#jobs) job.done?.();
    this.#jobs = [];
    this.#watchers = [];
    this.#buffer = null;
    this.#placed = false;
    this.#stalledAt = 0;
    this.#joint = null;
    this.#video.volume = 1;
  }
}
