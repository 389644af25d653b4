import { BINS } from "./frames.js";
import { colour, dark } from "../ui.js";

/** Columns of a picture at most; of longer recordings several frames share a column. */
const MAX_COLUMNS = 2048;

/** Colours of the levels 0 to 255, as bytes, from those of the stylesheet. */
function palette() {
  const stops = ["--level-0", "--level-1", "--level-2", "--level-3", "--level-4"].map((name) => {
    const hex = colour(name).slice(1);
    return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
  });
  const bytes = new Uint8ClampedArray(256 * 3);
  for (let level = 0; level < 256; level++) {
    const at = (level / 255) * (stops.length - 1);
    const n = Math.min(Math.floor(at), stops.length - 2);
    for (let c = 0; c < 3; c++) bytes[3 * level + c] = stops[n][c] + (stops[n + 1][c] - stops[n][c]) * (at - n);
  }
  return bytes;
}

/** A picture of levels over time and frequency. */
export class Spectrogram {
  #canvas;
  #picture = document.createElement("canvas");
  #columns = 1;
  /** Frames of a column, and whether new frames push the oldest out. */
  #each = 1;
  #rolls = false;
  #levels = new Uint8Array(0);
  #frames = 0;
  #drawn = 0;
  #colours = null;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    dark.addEventListener("change", () => {
      this.#colours = null;
      this.#drawn = 0;
      this.draw();
    });
  }

  /** Begins a picture of so many frames, or one that shows the last ones. */
  begin(frames, rolls = false) {
    this.#each = rolls ? 1 : Math.ceil(frames / MAX_COLUMNS);
    this.#columns = Math.max(1, Math.ceil(frames / this.#each));
    this.#rolls = rolls;
    this.#levels = new Uint8Array(this.#columns * BINS);
    this.#frames = 0;
    this.#drawn = 0;
    this.#picture.width = this.#columns;
    this.#picture.height = BINS;
    this.draw();
  }

  /** Adds frames of BINS levels each. */
  push(levels) {
    for (let at = 0; at < levels.length; at += BINS, this.#frames++) {
      const column = Math.floor(this.#frames / this.#each) % this.#columns;
      const into = this.#levels.subarray(column * BINS, (column + 1) * BINS);
      if (this.#frames % this.#each === 0) into.fill(0);
      for (let k = 0; k < BINS; k++) into[k] = Math.max(into[k], levels[at + k]);
    }
  }

  #paint() {
    const context = this.#picture.getContext("2d");
    const end = Math.ceil(this.#frames / this.#each);
    const image = context.createImageData(1, BINS);
    // The column before the new ones may have been half full.
    for (let n = Math.max(0, this.#drawn - 1, end - this.#columns); n < end; n++) {
      const column = n % this.#columns;
      for (let k = 0; k < BINS; k++) {
        const level = this.#levels[column * BINS + k];
        const at = 4 * (BINS - 1 - k);
        for (let c = 0; c < 3; c++) image.data[at + c] = this.#colours[3 * level + c];
        image.data[at + 3] = 255;
      }
      context.putImageData(image, column, 0);
    }
    this.#drawn = end;
  }

  draw() {
    this.#colours ??= palette();
    this.#paint();
    const { clientWidth, clientHeight } = this.#canvas;
    const [width, height] = [clientWidth, clientHeight].map((s) => Math.round(s * devicePixelRatio));
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      [this.#canvas.width, this.#canvas.height] = [width, height];
    }
    if (width === 0 || height === 0) return;
    const context = this.#canvas.getContext("2d");
    context.fillStyle = colour("--level-0");
    context.fillRect(0, 0, width, height);
    if (this.#drawn === 0) return;
    context.imageSmoothingQuality = "high";
    const scale = width / this.#columns;
    const part = (from, count, to) => {
      if (count > 0) context.drawImage(this.#picture, from, 0, count, BINS, to * scale, 0, count * scale, height);
    };
    const filled = Math.min(this.#drawn, this.#columns);
    if (!this.#rolls) {
      part(0, filled, 0);
      return;
    }
    // The newest column stands at the right.
    const oldest = this.#drawn > this.#columns ? this.#drawn % this.#columns : 0;
    part(oldest, filled - oldest, this.#columns - filled);
    part(0, oldest, this.#columns - oldest);
  }
}
