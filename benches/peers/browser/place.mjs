// What a page and its worker do when node asks: open a contender, give its numbers, time it.

import { inputs, open } from "./contenders.mjs";

let contender;
let frames;

const now = () => performance.now();
const turn = () => new Promise((resolve) => setTimeout(resolve));

/** Times of single calls in ms, after one that is not timed: for so many seconds, and at least two. */
async function timed(seconds, turns) {
  await contender.call(0);
  const times = [];
  const end = now() + 1000 * seconds;
  for (let n = 0; n < 2 || now() < end; n++) {
    // Without a turn of the event loop all calls may be one task.
    if (turns) await turn();
    const began = now();
    await contender.call(n);
    times.push(now() - began);
  }
  return times;
}

function median(values) {
  const sorted = values.slice().sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const answers = {
  async open({ spec }) {
    frames = await inputs(spec);
    contender = await open(spec, frames);
    return { threads: contender.threads };
  },

  /** The outputs of the first calls, one after the other. */
  async numbers({ count }) {
    const out = [];
    for (let n = 0; n < count; n++) {
      const y = await contender.call(n);
      for (const value of contender.after ? contender.after(y) : y) out.push(value);
    }
    return out;
  },

  /** Calls until the engines have compiled what they call often. */
  async warm({ seconds }) {
    await timed(seconds, false);
    return contender.choice?.();
  },

  async time({ seconds, turns }) {
    const times = await timed(seconds, turns);
    return { ms: median(times), calls: times.length };
  },

  /** Milliseconds from nothing to the first result. */
  async first({ spec }) {
    frames = await inputs(spec);
    const began = now();
    contender = await open(spec, frames);
    const y = await contender.call(0);
    const ms = now() - began;
    if (!(y.length > 0)) throw new Error(`${spec.library} gave nothing`);
    return ms;
  },
};

export async function answer(message) {
  return answers[message.ask](message);
}

