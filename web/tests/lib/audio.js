// The recording of the repository as the models of audio take it.

import { file } from "./browser.js";

/** The samples of the recording. */
export function recording() {
  const wav = file("models/noisy_speech.wav").subarray(44);
  return Float32Array.from({ length: wav.length >> 1 }, (_, n) => wav.readInt16LE(2 * n) / 32768);
}

/** What silero-vad takes: 512 new samples a call behind the last 64 of the call before. */
export function sileroCalls(samples = recording()) {
  const count = Math.ceil(samples.length / 512);
  const padded = new Float32Array(64 + count * 512);
  padded.set(samples, 64);
  const rate = { data: BigInt64Array.of(16000n), dims: [] };
  return Array.from({ length: count }, (_, n) => ({
    input: { data: padded.slice(n * 512, n * 512 + 576), dims: [1, 576] }, sr: rate,
  }));
}

/** Parts of an array of fixtures, each with these dimensions. */
export function parts({ data }, dims) {
  const size = dims.reduce((n, d) => n * d, 1);
  return Array.from({ length: data.length / size }, (_, n) => ({ data: data.slice(n * size, (n + 1) * size), dims }));
}
