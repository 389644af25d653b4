// The worker in which models run. Messages are requests of `engine.js` with a number; replies bear it too.

import { Engine, RecurveError } from "./engine.js";

const engine = new Engine();

addEventListener("message", async ({ data: { number, ...request } }) => {
  if (request.op === "close") return close(); // for tests: the worker ends as if it had died
  try {
    const { value, transfer = [], status } = await engine.request(request);
    postMessage({ number, value, status }, transfer);
  } catch (e) {
    const known = e instanceof RecurveError;
    const error = { kind: known ? e.kind : "Internal", message: known ? e.message : `${e}` };
    postMessage({ number, error, status: e?.status });
  }
});

// Whoever waits for this lock gets it when the worker is gone.
const lock = `recurve-web ${Math.random()} ${performance.timeOrigin}`;
const ready = (name) => postMessage({ ready: name });
if (globalThis.navigator?.locks) {
  navigator.locks.request(lock, () => {
    ready(lock);
    return new Promise(() => {});
  }).catch(() => ready(undefined));
} else {
  ready(undefined);
}
