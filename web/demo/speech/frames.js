// Frames of sound on their way through GTCRN, as models/gtcrn.toml describes them.
import { RealFft } from "./fft.js";

export const RATE = 16000;
/** Samples of a frame, and from one frame to the next. */
export const FRAME = 512;
export const HOP = 256;
/** Numbers of a spectrum. */
export const BINS = FRAME / 2 + 1;

/** The square root of a periodic Hann window. Its squares add up to 1 where frames overlap. */
const WINDOW = Float32Array.from({ length: FRAME }, (_, n) => Math.sin((Math.PI * n) / FRAME));

/** A recording with half a frame mirrored at both ends. */
export function mirrored(x) {
  const half = FRAME / 2;
  if (x.length <= half) {
    throw new RangeError(`The recording has ${x.length} samples at 16 kHz; at least ${half + 1} are needed.`);
  }
  const all = new Float32Array(x.length + FRAME);
  all.set(x, half);
  for (let n = 0; n < half; n++) {
    all[half - 1 - n] = x[n + 1];
    all[half + x.length + n] = x[x.length - 2 - n];
  }
  return all;
}

/** How many frames a recording has whose ends are mirrored. */
export const frameCount = (samples) => 1 + Math.floor(samples / HOP);

/**
 * Takes sound HOP samples at a time and gives as many, changed by `enhance`, which maps a spectrum
 * (BINS complex numbers as floats) to another. What comes out is HOP samples late.
 */
export class Denoiser {
  #enhance;
  #fft = new RealFft(FRAME);
  #frame = new Float32Array(FRAME);
  #sum = new Float32Array(FRAME);

  /** `first`: the HOP samples before those of the first call. */
  constructor(enhance, first = new Float32Array(HOP)) {
    this.#enhance = enhance;
    this.#frame.set(first, HOP);
  }

  async push(samples) {
    this.#frame.copyWithin(0, HOP);
    this.#frame.set(samples, HOP);
    const before = new Float32Array(2 * BINS);
    const time = this.#frame.map((x, n) => x * WINDOW[n]);
    this.#fft.forward(time, before);
    const after = await this.#enhance(before);
    this.#fft.inverse(after, time);
    this.#sum.copyWithin(0, HOP).fill(0, HOP);
    for (let n = 0; n < FRAME; n++) this.#sum[n] += time[n] * WINDOW[n];
    return { before, after, samples: this.#sum.slice(0, HOP) };
  }

  /** The HOP samples that the last frame has beyond those that were given. */
  rest() {
    return this.#sum.slice(HOP);
  }
}

/** A spectrum as levels for drawing: 0 is -45 dB or less, 255 is 35 dB or more. */
export function levels(spectrum, into, at) {
  for (let k = 0; k < BINS; k++) {
    const power = spectrum[2 * k] ** 2 + spectrum[2 * k + 1] ** 2;
    into[at + k] = Math.max(0, Math.min(255, ((10 * Math.log10(power + 1e-12) + 45) / 80) * 255));
  }
}
