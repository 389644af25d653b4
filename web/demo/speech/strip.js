import { colour, dark } from "../ui.js";
import { CHUNK_SECONDS, segments } from "./voice.js";

/** The probability of speech over time, and where there is speech. */
export class Strip {
  #canvas;
  #probabilities = [];
  #from = 0;
  #to = 1;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    dark.addEventListener("change", () => this.draw());
  }

  /** Shows these probabilities between two moments, in seconds. */
  show(probabilities, from, to) {
    this.#probabilities = probabilities;
    this.#from = from;
    this.#to = to;
    this.draw();
  }

  draw() {
    const { clientWidth, clientHeight } = this.#canvas;
    const [width, height] = [clientWidth, clientHeight].map((s) => Math.round(s * devicePixelRatio));
    [this.#canvas.width, this.#canvas.height] = [width, height];
    if (width === 0 || height === 0) return;
    const context = this.#canvas.getContext("2d");
    const x = (seconds) => ((seconds - this.#from) / (this.#to - this.#from)) * width;
    const bar = Math.round(height * 0.3);
    const line = Math.max(1, Math.round(1.5 * devicePixelRatio));
    const y = (p) => height - line - p * (height - bar - 3 * line);
    context.fillStyle = colour("--speech");
    for (const [begin, end] of segments(this.#probabilities)) {
      context.globalAlpha = 0.14;
      context.fillRect(x(begin), 0, x(end) - x(begin), height);
      context.globalAlpha = 1;
      context.fillRect(x(begin), 0, x(end) - x(begin), Math.round(bar / 2));
    }
    const first = Math.max(0, Math.floor(this.#from / CHUNK_SECONDS) - 1);
    const last = Math.min(this.#probabilities.length, Math.ceil(this.#to / CHUNK_SECONDS) + 1);
    context.beginPath();
    for (let n = first; n < last; n++) context.lineTo(x((n + 0.5) * CHUNK_SECONDS), y(this.#probabilities[n]));
    context.strokeStyle = colour("--speech");
    context.lineWidth = line;
    context.lineJoin = "round";
    context.stroke();
  }
}
