/** Spectra of real frames, whose length is a power of two. */
export class RealFft {
  #size;
  #re;
  #im;
  #cos;
  #sin;
  #order;

  constructor(size) {
    if (!Number.isInteger(Math.log2(size)) || size < 4) {
      throw new RangeError(`size: a power of two from 4 on was expected, and ${size} came`);
    }
    const half = size / 2;
    this.#size = size;
    this.#re = new Float64Array(half);
    this.#im = new Float64Array(half);
    this.#cos = Float64Array.from({ length: half }, (_, k) => Math.cos((2 * Math.PI * k) / size));
    this.#sin = Float64Array.from({ length: half }, (_, k) => Math.sin((2 * Math.PI * k) / size));
    this.#order = new Uint32Array(half);
    for (let n = 1; n < half; n++) {
      this.#order[n] = (this.#order[n >> 1] >> 1) | (n & 1 ? half >> 1 : 0);
    }
  }

  /** `x`: size samples. `spectrum` gets size / 2 + 1 complex numbers, each as two floats. */
  forward(x, spectrum) {
    const half = this.#size / 2;
    const [re, im, order] = [this.#re, this.#im, this.#order];
    // Even samples are the real part, odd samples the imaginary part of a signal of half the length.
    for (let n = 0; n < half; n++) {
      re[order[n]] = x[2 * n];
      im[order[n]] = x[2 * n + 1];
    }
    this.#transform(re, im);
    for (let k = 0; k <= half; k++) {
      const [a, b] = [k % half, (half - k) % half];
      const evenRe = (re[a] + re[b]) / 2;
      const evenIm = (im[a] - im[b]) / 2;
      const oddRe = (im[a] + im[b]) / 2;
      const oddIm = (re[b] - re[a]) / 2;
      const c = k === half ? -1 : this.#cos[k];
      const s = k === half ? 0 : -this.#sin[k];
      spectrum[2 * k] = evenRe + c * oddRe - s * oddIm;
      spectrum[2 * k + 1] = evenIm + c * oddIm + s * oddRe;
    }
  }

  /** The samples of a spectrum; the imaginary parts of its first and its last number count as zero. */
  inverse(spectrum, x) {
    const half = this.#size / 2;
    const [re, im, order] = [this.#re, this.#im, this.#order];
    for (let k = 0; k < half; k++) {
      const [a, b] = [2 * k, 2 * (half - k)];
      const aIm = k === 0 ? 0 : spectrum[a + 1];
      const bIm = k === 0 ? 0 : spectrum[b + 1];
      const evenRe = (spectrum[a] + spectrum[b]) / 2;
      const evenIm = (aIm - bIm) / 2;
      const differenceRe = (spectrum[a] - spectrum[b]) / 2;
      const differenceIm = (aIm + bIm) / 2;
      const oddRe = differenceRe * this.#cos[k] - differenceIm * this.#sin[k];
      const oddIm = differenceRe * this.#sin[k] + differenceIm * this.#cos[k];
      // The parts change places, so that the transform below goes the other way.
      re[order[k]] = evenIm + oddRe;
      im[order[k]] = evenRe - oddIm;
    }
    this.#transform(re, im);
    for (let n = 0; n < half; n++) {
      x[2 * n] = im[n] / half;
      x[2 * n + 1] = re[n] / half;
    }
  }

  /** The transform in place, of numbers in the order of their reversed bits. */
  #transform(re, im) {
    const half = re.length;
    for (let width = 1; width < half; width *= 2) {
      const stride = half / width;
      for (let start = 0; start < half; start += 2 * width) {
        for (let k = 0; k < width; k++) {
          const [c, s] = [this.#cos[k * stride], -this.#sin[k * stride]];
          const [a, b] = [start + k, start + k + width];
          const tRe = re[b] * c - im[b] * s;
          const tIm = re[b] * s + im[b] * c;
          re[b] = re[a] - tRe;
          im[b] = im[a] - tIm;
          re[a] += tRe;
          im[a] += tIm;
        }
      }
    }
  }
}
