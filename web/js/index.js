// The interface of the package, described in `index.d.ts`. Models run in a worker (`worker.js`), or here.

import { Engine, RecurveError, download, fetched, startWorker } from "./engine.js";

export { RecurveError };

const bad = (kind, message) => new RecurveError(kind, message);

/** What a value is, for errors. */
function described(v) {
  if (v === null) return "null";
  if (Array.isArray(v)) return "an array";
  if (typeof v === "object") return `an object of class ${v.constructor?.name ?? "unknown"}`;
  if (typeof v === "string") return JSON.stringify(v.length > 50 ? `${v.slice(0, 50)}…` : v);
  return ["number", "boolean", "bigint"].includes(typeof v) ? `${v}` : `${typeof v}`;
}

function options(given, of, known) {
  if (given === undefined) return {};
  if (given === null || typeof given !== "object" || Array.isArray(given)) {
    throw bad("Argument", `${of}: options: expected an object, got ${described(given)}`);
  }
  for (const key of Object.keys(given)) {
    if (!known.includes(key)) throw bad("Argument", `${of}: no option \`${key}\`; there are ${known.join(", ")}`);
  }
  return given;
}

/** A worker and the requests that it has not answered. */
class WorkerLink {
  constructor() {
    this.waiting = new Map();
    this.last = 0;
    const address = new URL("./worker.js", import.meta.url);
    try {
      this.worker = startWorker("./worker.js", "recurve-web");
    } catch (e) {
      throw bad("Worker", `${address.href}: the worker cannot be started (${e.message}); \`worker: false\` needs none`);
    }
    this.worker.addEventListener("message", ({ data }) => this.answered(data));
    this.worker.addEventListener("error", (e) => {
      if (this.ready) return; // what fails inside is answered
      this.end(bad("Worker", `${address.href}: the worker cannot be started (${e.message || "its files cannot be " +
        "loaded"}); \`worker: false\` needs none`));
    });
    this.worker.addEventListener("messageerror", () => {
      this.end(bad("OutOfMemory", "an answer of the worker could not be taken; load the models again"));
    });
  }

  answered({ ready, number, value, error, status, ...rest }) {
    if (number === undefined) {
      this.ready = true;
      if (ready) {
        navigator.locks.request(ready, () => {
          this.end(bad("Worker", "the worker has ended, and its models with it; load them again"));
        }).catch(() => {});
      }
      return;
    }
    const { resolve, reject } = this.waiting.get(number);
    this.waiting.delete(number);
    if (error) reject(Object.assign(bad(error.kind, error.message), status && { status }));
    else resolve({ value, status, ...rest });
  }

  /** Nothing more will be answered. */
  end(error) {
    if (this.ended) return;
    this.ended = error;
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }

  request(request, transfer = []) {
    if (this.ended) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => {
      const number = ++this.last;
      this.worker.postMessage({ ...request, number }, transfer);
      this.waiting.set(number, { resolve, reject });
    });
  }
}

let worker, direct;

function link(inWorker) {
  if (!inWorker) return (direct ??= new Engine());
  if (worker?.ended || !worker) worker = new WorkerLink();
  return worker;
}

const onPage = () => typeof document !== "undefined";

/** Frees what nobody holds any more. */
const forgotten = new FinalizationRegistry(({ link, ids }) => {
  link.request({ op: "dispose", ...ids }).catch(() => {});
});

const TYPED = [Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, BigInt64Array, Uint8Array,
  Uint8ClampedArray, Uint16Array, Uint32Array, BigUint64Array];

/** A copy of an input, and its buffer where that can be given away. */
function copied(name, array, transfer) {
  const where = `input \`${name.slice(0, 200)}\``;
  if (array === null || typeof array !== "object") {
    throw bad("Input", `${where}: expected { data, dims }, got ${described(array)}`);
  }
  const { data, dims } = array;
  let copy;
  if (TYPED.some((t) => data instanceof t)) {
    copy = data.slice();
    transfer.push(copy.buffer);
  } else if (Array.isArray(data)) {
    const wrong = data.findIndex((v) => !["number", "bigint", "boolean"].includes(typeof v));
    if (wrong >= 0) {
      throw bad("Input", `${where}: \`data\` must hold numbers, but element ${wrong} is ${described(data[wrong])}`);
    }
    copy = Array.from(data);
  } else {
    throw bad("Input", `${where}: \`data\` must be a typed array or an array of numbers, but it is ${described(data)}`);
  }
  if (dims === undefined) return { data: copy };
  if (!Array.isArray(dims)) {
    throw bad("Input", `${where}: \`dims\` must be an array of whole numbers, but it is ${described(dims)}`);
  }
  const wrong = dims.findIndex((d) => !Number.isSafeInteger(d) || d < 0);
  if (wrong >= 0) {
    const got = described(dims[wrong]);
    throw bad("Input", `${where}: \`dims\` must be an array of whole numbers, but at ${wrong} there is ${got}`);
  }
  const count = dims.reduce((n, d) => n * d, 1);
  if (count !== copy.length) {
    throw bad("Input", `${where}: \`dims\` are [${dims.join(", ")}], which is ${count} elements, but \`data\` has ` +
      `${copy.length}`);
  }
  return { data: copy, dims: Array.from(dims) };
}

function taken(inputs, transfer) {
  if (inputs === null || typeof inputs !== "object" || Array.isArray(inputs)) {
    throw bad("Input", `expected inputs by name, { name: { data, dims } }, got ${described(inputs)}`);
  }
  return Object.fromEntries(Object.entries(inputs).map(([name, a]) => [name, copied(name, a, transfer)]));
}

class Model {
  #link;
  #about;
  #status;
  #ids;
  #disposed = false;

  constructor(link, { id, about }, status) {
    this.#link = link;
    this.#about = about;
    this.#status = status;
    this.#ids = { model: id };
    forgotten.register(this, { link, ids: this.#ids }, this);
  }

  get name() { return this.#about.name; }
  get inputs() { return this.#about.inputs; }
  get outputs() { return this.#about.outputs; }
  get notes() { return this.#about.notes; }
  get device() { return this.#status.device; }
  get deviceName() { return this.#status.deviceName; }
  get threads() { return this.#status.threads; }
  get choice() { return this.#status.choice; }

  summary() { return this.#about.summary; }

  /** A request of the model's or of one of its sessions. */
  async #request(request, transfer) {
    if (this.#disposed && request.op !== "dispose") throw bad("Disposed", "the model is disposed");
    try {
      const { value, status } = await this.#link.request({ ...this.#ids, ...request }, transfer);
      this.#status = status ?? this.#status;
      return value;
    } catch (e) {
      this.#status = e.status ?? this.#status;
      delete e.status;
      throw e;
    }
  }

  async run(inputs) {
    const transfer = [];
    return this.#request({ op: "run", args: [taken(inputs, transfer)] }, transfer);
  }

  async session(given) {
    const { batch = 1, states } = options(given, "session", ["batch", "states"]);
    if (!Number.isSafeInteger(batch) || batch < 1) {
      throw bad("Argument", `session: \`batch\`: expected a whole number of at least 1, got ${described(batch)}`);
    }
    const pair = (p) => Array.isArray(p) && p.length === 2 && p.every((name) => typeof name === "string");
    if (states !== undefined && !(Array.isArray(states) && states.every(pair))) {
      const got = Array.isArray(states) ? states.find((p) => !pair(p)) : states;
      throw bad("Argument", `session: \`states\`: expected pairs of names, [[input, output], …], got ${described(got)}`);
    }
    const pairs = states?.map((p) => [...p]);
    const session = await this.#request({ op: "session", args: [{ batch, states: pairs }] });
    const request = (request, transfer) => this.#request({ ...request, session }, transfer);
    const made = new Session(request);
    forgotten.register(made, { link: this.#link, ids: { ...this.#ids, session } }, made);
    return made;
  }

  async readText(text) {
    if (typeof text !== "string") throw bad("Input", `readText: expected a text, got ${described(text)}`);
    return this.#request({ op: "readText", args: [text] });
  }

  async dispose() {
    if (this.#disposed) return;
    this.#disposed = true;
    forgotten.unregister(this);
    // A worker that has ended holds nothing.
    await this.#request({ op: "dispose" }).catch(() => {});
  }
}

class Session {
  #request;
  #disposed = false;

  constructor(request) {
    this.#request = (...args) => {
      if (this.#disposed) throw bad("Disposed", "the session is disposed");
      return request(...args);
    };
  }

  async states() { return this.#request({ op: "states" }); }

  async run(inputs) {
    const transfer = [];
    return this.#request({ op: "run", args: [taken(inputs, transfer)] }, transfer);
  }

  async state(name) { return this.#request({ op: "state", args: [`${name}`] }); }

  async setState(name, array) {
    const transfer = [];
    const copy = copied(`${name}`, array, transfer);
    await this.#request({ op: "setState", args: [`${name}`, copy] }, transfer);
  }

  async reset() { await this.#request({ op: "reset" }); }

  async dispose() {
    if (this.#disposed) return;
    const done = this.#request({ op: "dispose" });
    this.#disposed = true;
    forgotten.unregister(this);
    await done.catch(() => {});
  }
}

/** The last part of an address. */
function fileName(address) {
  const path = new URL(address, globalThis.location?.href).pathname;
  try {
    return decodeURIComponent(path.split("/").pop());
  } catch {
    return path.split("/").pop();
  }
}

/** The bytes of a source, as an array of our own, and a name. */
async function bytesOf(source, { onProgress, signal, fetch: init }) {
  signal?.throwIfAborted();
  if (typeof source === "string" || source instanceof URL) {
    let address;
    try {
      address = new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href).href;
    } catch {
      throw bad("Argument", `load: \`source\`: ${described(`${source}`)} is no address`);
    }
    const stop = signal ?? init?.signal;
    const response = await fetched(address, { ...init, signal: stop });
    return { bytes: await download(response, address, onProgress), name: fileName(address) };
  }
  if (source instanceof Response) {
    const name = source.url ? fileName(source.url) : "";
    return { bytes: await download(source, source.url || "the response", onProgress), name };
  }
  if (source instanceof Blob) {
    const bytes = await source.arrayBuffer().catch((e) => {
      throw bad("Fetch", `${source.name ?? "the blob"}: cannot be read (${e.message})`);
    });
    return { bytes: new Uint8Array(bytes), name: source.name ?? "" };
  }
  if (ArrayBuffer.isView(source)) {
    return { bytes: new Uint8Array(source.buffer, source.byteOffset, source.byteLength).slice(), name: "" };
  }
  if (source instanceof ArrayBuffer || globalThis.SharedArrayBuffer && source instanceof SharedArrayBuffer) {
    return { bytes: new Uint8Array(source).slice(), name: "" };
  }
  throw bad("Argument", `load: \`source\`: expected an address, bytes (ArrayBuffer, Uint8Array), a Blob, File or ` +
    `Response, got ${described(source)}`);
}

/** The threads that may be asked for. */
const MOST_THREADS = 32;

export async function load(source, given) {
  const known = ["device", "threads", "relaxedSimd", "onProgress", "signal", "fetch", "worker"];
  const all = options(given, "load", known);
  const { device = "auto", threads = 1, relaxedSimd = true, worker: inWorker = onPage(), onProgress, signal } = all;
  if (!["auto", "webgpu", "wasm"].includes(device)) {
    throw bad("Argument", `load: \`device\`: expected "auto", "webgpu" or "wasm", got ${described(device)}`);
  }
  if (threads !== "auto" && !(Number.isSafeInteger(threads) && threads >= 1 && threads <= MOST_THREADS)) {
    throw bad("Argument", `load: \`threads\`: expected "auto" or a whole number from 1 to ${MOST_THREADS}, got ${described(threads)}`);
  }
  if (threads > 1 && device !== "wasm") {
    throw bad("Argument", `load: \`threads\`: several threads need \`device: "wasm"\`, but \`device\` is ${described(device)}`);
  }
  for (const [name, value] of Object.entries({ relaxedSimd, worker: inWorker })) {
    if (typeof value !== "boolean") {
      throw bad("Argument", `load: \`${name}\`: expected true or false, got ${described(value)}`);
    }
  }
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw bad("Argument", `load: \`onProgress\`: expected a function, got ${described(onProgress)}`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw bad("Argument", `load: \`signal\`: expected an AbortSignal, got ${described(signal)}`);
  }
  const { bytes, name } = await bytesOf(source, all);
  signal?.throwIfAborted();
  const to = link(inWorker);
  const args = [{ bytes, name: name || "model", device, relaxed: relaxedSimd, threads }];
  const { value, status } = await to.request({ op: "open", args }, [bytes.buffer]);
  return new Model(to, value, status);
}

export async function devices() {
  return (await link(onPage()).request({ op: "devices" })).value;
}

/** For the tests of the package; no part of its interface. */
export const testing = {
  ask: async (op, inWorker = onPage()) => (await link(inWorker).request({ op })).value,
};
