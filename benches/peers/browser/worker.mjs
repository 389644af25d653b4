import { answer } from "./place.mjs";

self.onmessage = async ({ data: { id, message } }) => {
  try {
    self.postMessage({ id, given: await answer(message) });
  } catch (error) {
    self.postMessage({ id, failed: `${error?.stack ?? error}` });
  }
};
self.postMessage({ ready: true });
