// Records the microphone as 16 kHz mono until told to stop.

const LONGEST_SECONDS = 60;
export const RATE = 16000;

export class Microphone {
  #stream;
  #context;
  #node;
  #pieces = [];
  #stopped = () => {};

  /** Called with the loudness (0..1) ten times a second. */
  onlevel = () => {};
  /** Called when the longest recording is reached. */
  onfull = () => {};

  static get supported() {
    return Boolean(navigator.mediaDevices?.getUserMedia && globalThis.AudioWorkletNode);
  }

  async start() {
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
    this.#context = new AudioContext();
    await this.#context.audioWorklet.addModule(new URL("./pcm.js", import.meta.url));
    this.#node = new AudioWorkletNode(this.#context, "pcm", { numberOfOutputs: 0 });
    this.#node.port.onmessage = ({ data: { samples, peak, last } }) => {
      this.#pieces.push(samples);
      this.onlevel(peak);
      if (last) this.#stopped();
      else if (this.#pieces.length * samples.length >= LONGEST_SECONDS * RATE) this.onfull();
    };
    this.#context.createMediaStreamSource(this.#stream).connect(this.#node);
  }

  /** End the recording; resolves to its samples, Int16Array. */
  async stop() {
    const ended = new Promise((resolve) => (this.#stopped = resolve));
    this.#node.port.postMessage("end");
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 500))]);
    this.cancel();
    const length = this.#pieces.reduce((sum, piece) => sum + piece.length, 0);
    const all = new Int16Array(length);
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }

  /** Let go of the microphone. */
  cancel() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#context?.close();
  }
}

/** Samples as a WAV file. */
export function wav(samples) {
  const bytes = new ArrayBuffer(44 + samples.byteLength);
  const view = new DataView(bytes);
  const text = (at, value) => [...value].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + samples.byteLength, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true);
  view.setUint32(28, RATE * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples.byteLength, true);
  new Int16Array(bytes, 44).set(samples);
  return new Blob([bytes], { type: "audio/wav" });
}
