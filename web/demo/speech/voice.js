// Where there is speech, by silero-vad: 512 new samples after 64 that came before, a call.

export const CHUNK = 512;
const CONTEXT = 64;
/** Seconds of a call. */
export const CHUNK_SECONDS = CHUNK / 16000;

/** Speech begins where the probability reaches the threshold, and ends where it has been below the lower one for a while. */
const THRESHOLD = 0.5;
const LOWER = 0.35;
/** Seconds: silences that are shorter end no speech, speech that is shorter is none, and what is added on both sides. */
const MIN_SILENCE = 0.1;
const MIN_SPEECH = 0.25;
const PAD = 0.03;

/** Gives `probability` CONTEXT + CHUNK samples for every CHUNK that come. */
export class VoiceDetector {
  #probability;
  #input = new Float32Array(CONTEXT + CHUNK);
  #filled = 0;

  constructor(probability) {
    this.#probability = probability;
  }

  /** The probabilities of the chunks that these samples complete. */
  async push(samples) {
    const all = [];
    for (let at = 0; at < samples.length; ) {
      const part = samples.subarray(at, at + CHUNK - this.#filled);
      this.#input.set(part, CONTEXT + this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === CHUNK) {
        all.push(await this.#probability(this.#input.slice()));
        this.#input.copyWithin(0, CHUNK);
        this.#filled = 0;
      }
    }
    return all;
  }

  /** The probability of the samples that make no whole chunk, with zeros behind them. */
  async finish() {
    return this.#filled === 0 ? [] : this.push(new Float32Array(CHUNK - this.#filled));
  }
}

/** Where there is speech, as pairs of seconds, by the probability of each chunk. */
export function segments(probabilities) {
  const all = [];
  let begin = null;
  let quiet = null;
  for (let n = 0; n < probabilities.length; n++) {
    const now = n * CHUNK_SECONDS;
    if (probabilities[n] >= THRESHOLD) {
      begin ??= now;
      quiet = null;
    } else if (begin !== null && probabilities[n] < LOWER) {
      quiet ??= now;
      if (now + CHUNK_SECONDS - quiet >= MIN_SILENCE) {
        all.push([begin, quiet]);
        begin = quiet = null;
      }
    }
  }
  const end = probabilities.length * CHUNK_SECONDS;
  if (begin !== null) all.push([begin, end]);
  return all
    .filter(([a, b]) => b - a >= MIN_SPEECH)
    .map(([a, b]) => [Math.max(0, a - PAD), Math.min(end, b + PAD)]);
}
