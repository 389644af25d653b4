// `ask(message)` for node: answered by this page, or by its worker (`?place=worker`).

import { answer } from "./place.mjs";

function inWorker() {
  const worker = new Worker(new URL("./worker.mjs", import.meta.url), { type: "module" });
  const waiting = new Map();
  let ids = 0;
  const ready = new Promise((resolve, reject) => {
    worker.onerror = (event) => reject(new Error(`worker: ${event.message}`));
    worker.onmessage = ({ data }) => {
      if (data.ready) return resolve();
      const { given, failed } = waiting.get(data.id);
      waiting.delete(data.id);
      if (data.failed) failed(new Error(data.failed));
      else given(data.given);
    };
  });
  return async (message) => {
    await ready;
    return new Promise((given, failed) => {
      waiting.set(++ids, { given, failed });
      worker.postMessage({ id: ids, message });
    });
  };
}

globalThis.ask = new URLSearchParams(location.search).get("place") === "worker" ? inWorker() : answer;
