// Browsers, pages and jobs: what `page/job.js` does with the package.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { chromium } from "playwright-core";
import { repository, serve } from "./server.js";

/** A program by its path, or by its name where programs are. */
function program(name) {
  if (isAbsolute(name)) return name;
  return (process.env.PATH ?? "").split(delimiter).map((at) => join(at, name)).find((at) => existsSync(at)) ?? name;
}

const executablePath = program(process.env.CHROMIUM || "chromium");
const COMMON = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"];
const WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
const NO_WEBGPU = ["--disable-features=WebGPU,WebGPUService", "--disable-blink-features=WebGPU"];

/** A browser, with WebGPU on the processor or without WebGPU. */
export function launch({ webgpu = true, args = [] } = {}) {
  if (!existsSync(executablePath)) {
    throw new Error(`no program ${executablePath}; set CHROMIUM to where Chromium is`);
  }
  return chromium.launch({ executablePath, args: [...COMMON, ...(webgpu ? WEBGPU : NO_WEBGPU), ...args] });
}

/** The page of the tests, ready; what goes wrong in it is kept in `page.problems`. */
export async function open(browser, server, path = "/tests/page/index.html") {
  const page = await browser.newPage();
  page.problems = [];
  page.on("pageerror", (e) => page.problems.push(`${e}`));
  page.on("crash", () => page.problems.push("the page crashed"));
  await page.goto(server.url + path);
  await page.waitForFunction(() => globalThis.ready, undefined, { timeout: 30_000 });
  return page;
}

/** A server, a browser and a page of the tests, for a file of tests. */
export async function start(options) {
  const server = await serve(options);
  const browser = await launch();
  return { server, browser, page: await open(browser, server) };
}

/** Ends what `start` gave; nothing may have gone wrong in the page. */
export async function stop({ server, browser, page }) {
  try {
    assert.deepEqual(page?.problems, []);
  } finally {
    await browser?.close();
    await server?.close();
  }
}

/** An array as text for the page. */
export function packed({ data, dims }) {
  return { kind: data.constructor.name, base64: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64"), dims };
}

const KINDS = { Float32Array, BigInt64Array, BigUint64Array, Int32Array, Uint8Array, Int8Array, Int16Array, Uint16Array,
  Uint32Array };

function unpacked({ kind, base64, dims, type }) {
  const bytes = Buffer.from(base64, "base64");
  return { data: new KINDS[kind](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length)), dims, type };
}

const each = (object, f) => Object.fromEntries(Object.entries(object).map(([k, v]) => [k, f(v)]));

/** A file of the repository. */
export const file = (path) => readFileSync(join(repository, path));

/**
 * Does a job in a page: `{ model, options, steps }`, where the model is an address or bytes, and a step is `{ run:
 * inputs }`, `{ session: options }`, `{ step: inputs }`, `{ reset: true }`, `{ text }`, `{ state: name }`,
 * `{ setState: [name, array] }`. `where` is "page", "main" (`worker: false` on the page) or "inner" (in a worker of the
 * page's own). Returns what came of each step, an error as `{ error }`, and what the model said of itself.
 */
export async function perform(page, where, { model, options, steps }) {
  const plain = steps.map((s) => {
    const [[op, arg]] = Object.entries(s);
    if (op === "run" || op === "step") return [op, Array.isArray(arg) ? arg.map(packed) : each(arg, packed)];
    if (op === "setState") return [op, [arg[0], packed(arg[1])]];
    return [op, arg];
  });
  const source = typeof model === "string" ? model : { base64: Buffer.from(model).toString("base64") };
  const done = await page.evaluate(([where, job]) => globalThis.perform(where, job), [where, { source, options, steps: plain }]);
  if (done.error) throw Object.assign(new Error(done.error.message), done.error);
  const results = done.results.map((r) => (r.outputs ? each(r.outputs, unpacked) : r.array ? unpacked(r.array) : r));
  for (const r of results) if (r.error && !options?.mayFail) throw Object.assign(new Error(r.error.message), r.error);
  return { ...done, results };
}
