// Audio worklet: whatever rate the microphone has, to 16 kHz mono in pieces of 0.1 s.
// A windowed sinc keeps what 16 kHz cannot hold (above 8 kHz) from folding into the speech.

const RATE = 16000;
const PIECE = 1600;
const CROSSINGS = 12;

class Pcm extends AudioWorkletProcessor {
  constructor() {
    super();
    this.step = sampleRate / RATE;
    this.cut = Math.min(1, 1 / this.step) * 0.95;
    this.reach = Math.ceil(CROSSINGS / this.cut);
    this.kept = new Float32Array(this.reach * 2);
    this.position = this.reach;
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.peak = 0;
    this.port.onmessage = () => this.send(true);
  }

  process([input]) {
    if (!input.length) return true;
    const samples = new Float32Array(this.kept.length + input[0].length);
    samples.set(this.kept);
    for (const channel of input) {
      for (let i = 0; i < channel.length; i++) samples[this.kept.length + i] += channel[i] / input.length;
    }
    while (this.position + this.reach < samples.length) {
      this.push(this.at(samples, this.position));
      this.position += this.step;
    }
    const gone = samples.length - this.reach * 2;
    this.kept = samples.slice(gone);
    this.position -= gone;
    return true;
  }

  at(samples, position) {
    let sum = 0;
    for (let i = Math.ceil(position - this.reach); i <= position + this.reach; i++) {
      const x = i - position;
      const angle = Math.PI * x * this.cut;
      const sinc = Math.abs(angle) < 1e-9 ? 1 : Math.sin(angle) / angle;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / (this.reach + 1));
      sum += samples[i] * sinc * window;
    }
    return sum * this.cut;
  }

  push(value) {
    this.peak = Math.max(this.peak, Math.abs(value));
    this.piece[this.filled++] = Math.round(Math.max(-1, Math.min(1, value)) * 32767);
    if (this.filled === PIECE) this.send(false);
  }

  send(last) {
    const samples = this.piece.slice(0, this.filled);
    this.port.postMessage({ samples, peak: this.peak, last }, [samples.buffer]);
    this.filled = this.peak = 0;
  }
}

registerProcessor("pcm", Pcm);
