// A worker of the page's own, in which the package is used directly.

import * as recurve from "/dist/index.js";
import { perform } from "./job.js";

addEventListener("message", async ({ data: { number, job } }) => {
  postMessage({ number, done: await perform(recurve, job) });
});
