import { digits } from "../ui.js";

const SVG = "http://www.w3.org/2000/svg";
/** Pixels around the lines. */
const [LEFT, RIGHT, TOP, BOTTOM] = [60, 8, 10, 46];

function svg(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const marks = {
  wasm: (x, y) => svg("circle", { cx: x, cy: y, r: 4.5 }),
  webgpu: (x, y) => svg("rect", { x: x - 4, y: y - 4, width: 8, height: 8 }),
};

/**
 * Draws milliseconds over sequence lengths, both logarithmic, into `element`.
 * `series`: [{ device, name, points: [[T, ms], …] }]; `lengths`: those of the axis.
 */
export function drawChart(element, lengths, series) {
  const [width, height] = [element.clientWidth, element.clientHeight];
  // A coarse clock may measure nothing, which has no logarithm.
  const drawn = (ms) => Math.min(Math.max(ms, 1e-4), 1e7);
  const all = series.flatMap((s) => s.points.map(([, ms]) => drawn(ms)));
  const low = Math.floor(Math.log10(Math.min(0.1, ...all)));
  const high = Math.max(low + 2, Math.ceil(Math.log10(Math.max(10, ...all))));
  const [first, last] = [Math.log2(lengths[0]), Math.log2(lengths.at(-1))];
  const x = (t) => LEFT + 14 + ((Math.log2(t) - first) / (last - first)) * (width - LEFT - RIGHT - 28);
  const y = (ms) => height - BOTTOM - ((Math.log10(drawn(ms)) - low) / (high - low)) * (height - TOP - BOTTOM);

  const parts = [];
  for (let power = low; power <= high; power++) {
    const at = y(10 ** power);
    parts.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
    const name = 10 ** power >= 1000 ? `${10 ** (power - 3)} s` : `${+(10 ** power).toFixed(4)} ms`;
    parts.push(svg("text", { class: "tick", x: LEFT - 8, y: at + 4, "text-anchor": "end" }, name));
  }
  for (const t of lengths) {
    parts.push(svg("line", { class: "grid", x1: x(t), x2: x(t), y1: height - BOTTOM, y2: height - BOTTOM + 4 }));
    parts.push(svg("text", { class: "tick", x: x(t), y: height - BOTTOM + 19, "text-anchor": "middle" }, t));
  }
  const middle = (LEFT + width - RIGHT) / 2;
  parts.push(svg("text", { class: "tick", x: middle, y: height - 6, "text-anchor": "middle" }, "timesteps of a call"));
  for (const { device, points } of series) {
    const group = svg("g", { class: `series ${device}` });
    const line = points.map(([t, ms], n) => `${n ? "L" : "M"}${x(t).toFixed(1)} ${y(ms).toFixed(1)}`).join("");
    group.append(svg("path", { d: line }), ...points.map(([t, ms]) => {
      const mark = marks[device](x(t), y(ms));
      mark.append(svg("title", {}, `${t} timesteps: ${digits(ms)} ms`));
      return mark;
    }));
    parts.push(group);
  }
  element.replaceChildren(...parts);
}
