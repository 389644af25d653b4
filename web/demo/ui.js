/** An element with attributes and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

export const calm = matchMedia("(prefers-reduced-motion: reduce)");
export const dark = matchMedia("(prefers-color-scheme: dark)");

/** A colour of the stylesheet. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Three digits, without an exponent. */
export function digits(x) {
  const places = x >= 99.95 ? 0 : x >= 9.995 ? 1 : x >= 0.9995 ? 2 : 3;
  // The first call of toLocaleString takes longer than a frame of the screen.
  return x.toFixed(places).replace(/\B(?=(\d{3})+$)/g, places ? "" : ",");
}

/** Seconds as 1:05.3. */
export function clock(seconds) {
  const tenths = Math.floor(seconds * 10 + 1e-6);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}

export const deviceWords = { wasm: "WebAssembly", webgpu: "WebGPU" };

/** An error in words that help. */
export function words(error) {
  const message = error?.message || String(error);
  switch (error?.kind ?? error?.name) {
    case "DeviceLost":
      return `The GPU was lost, and the work with it. Start again to open it anew. (${message})`;
    case "OutOfMemory":
      return `There is not enough memory for this. (${message})`;
    case "NotAllowedError":
      return "The browser did not allow the microphone. Allow it for this page, then try again.";
    case "NotFoundError":
      return "No microphone was found.";
    case "NotReadableError":
      return "The microphone could not be opened. Another program may be using it.";
    default:
      return message;
  }
}

/** The place of a tab for errors. It is read out at once. */
export class Notice {
  #element;

  constructor(element) {
    this.#element = element;
  }

  show(text) {
    this.#element.textContent = text;
    this.#element.hidden = false;
  }

  clear() {
    this.#element.hidden = true;
    this.#element.textContent = "";
  }
}

/** Calls `draw` in the next frame of the screen, once however often it is asked. */
export function onceAFrame(draw) {
  let asked = 0;
  return () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      draw();
    });
  };
}
