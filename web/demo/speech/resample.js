/** Lobes of the filter on each side. */
const LOBES = 24;

const gcd = (a, b) => (b === 0 ? a : gcd(b, a % b));

/** Changes the rate of sound that comes in parts, by a windowed sinc. */
export class Resampler {
  #up;
  #down;
  #phases;
  #half;
  /** Samples that are still needed; the first one is sample `#first` of all. */
  #held;
  #first;
  /** How many samples have come out. */
  #given = 0;

  constructor(from, to) {
    for (const [name, rate] of [["from", from], ["to", to]]) {
      if (!Number.isInteger(rate) || rate < 1) {
        throw new RangeError(`${name}: a whole number of samples a second was expected, and ${rate} came`);
      }
    }
    const common = gcd(from, to);
    this.#up = to / common;
    this.#down = from / common;
    // A little below half of the lower rate, so that the filter's slope ends there.
    const cutoff = Math.min(1, to / from) * 0.94;
    this.#half = Math.ceil(LOBES / cutoff);
    this.#phases = Array.from({ length: this.#up }, (_, phase) => this.#taps(phase / this.#up, cutoff));
    this.#held = new Float32Array(this.#half);
    this.#first = -this.#half;
  }

  /** The filter for a place that lies `shift` of a sample behind a sample. */
  #taps(shift, cutoff) {
    const taps = Float64Array.from({ length: 2 * this.#half }, (_, n) => {
      const t = n - this.#half + 1 - shift;
      const window = Math.abs(t) >= this.#half ? 0 : Math.cos((Math.PI * t) / (2 * this.#half)) ** 2;
      return window * (t === 0 ? cutoff : Math.sin(Math.PI * cutoff * t) / (Math.PI * t));
    });
    const sum = taps.reduce((a, b) => a + b);
    return taps.map((t) => t / sum);
  }

  /** What can be told from the samples so far. */
  push(samples) {
    const held = new Float32Array(this.#held.length + samples.length);
    held.set(this.#held);
    held.set(samples, this.#held.length);
    const out = [];
    for (;;) {
      const place = this.#given * this.#down;
      const start = Math.floor(place / this.#up) - this.#half + 1 - this.#first;
      if (start + 2 * this.#half > held.length) {
        const keep = Math.min(Math.max(0, start), held.length);
        this.#held = held.slice(keep);
        this.#first += keep;
        return Float32Array.from(out);
      }
      const taps = this.#phases[place % this.#up];
      let sum = 0;
      for (let n = 0; n < taps.length; n++) sum += taps[n] * held[start + n];
      out.push(sum);
      this.#given++;
    }
  }
}
