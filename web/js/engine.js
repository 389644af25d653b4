// What runs models: modules of WebAssembly, devices, models and sessions. It is in the worker's thread, or in the
// caller's with `worker: false`. Requests come and replies go as plain data that can be sent to another thread.

/** Every error of Recurve. */
export class RecurveError extends Error {
  constructor(kind, message, options) {
    super(message, options);
    this.kind = kind;
  }
}
Object.defineProperty(RecurveError.prototype, "name", { value: "RecurveError" });

// Modules with one function that uses an instruction of each extension.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98,
  11];
const RELAXED = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65,
  2, 253, 15, 253, 128, 2, 11];

const valid = (bytes) => WebAssembly.validate(new Uint8Array(bytes));
const text = (e) => (e instanceof Error ? e.message : String(e));

function simd(relaxed) {
  if (typeof WebAssembly !== "object" || !valid(SIMD)) {
    throw new RecurveError("Unsupported", "this browser has no WebAssembly with SIMD (128 bits), which Recurve needs");
  }
  return relaxed && valid(RELAXED) ? "relaxed" : "simd";
}

/** The threads that "auto" takes at most. */
const AUTO_THREADS = 4;

/** Why there can be no threads besides this one, or undefined. */
function noThreads(relaxed) {
  if (typeof document !== "undefined") return "a page's own thread may not wait for others; leave out `worker: false`";
  if (!globalThis.crossOriginIsolated || typeof SharedArrayBuffer !== "function") {
    return "the page is not cross-origin isolated; its server must send the headers `Cross-Origin-Opener-Policy: " +
      "same-origin` and `Cross-Origin-Embedder-Policy: require-corp`";
  }
  if (typeof Worker !== "function") return "no workers can be started here";
  if (!relaxed) return "there is no module with threads but without relaxed SIMD; leave out `relaxedSimd: false`";
  if (simd(true) !== "relaxed") return "this browser has no relaxed SIMD, which the module with threads needs";
  return undefined;
}

/** The number of threads that are asked for. */
function threadCount(asked, relaxed) {
  if (asked === 1) return 1;
  const missing = noThreads(relaxed);
  if (asked === "auto") return missing ? 1 : Math.min(navigator.hardwareConcurrency || 1, AUTO_THREADS);
  if (missing) throw new RecurveError("Unsupported", `load: \`threads\`: ${asked} threads are not possible: ${missing}`);
  return asked;
}

/** A module worker of the package. */
export function startWorker(file, name) {
  const address = new URL(file, import.meta.url);
  // A worker must come from the page's own origin; a module that it imports need not.
  const own = address.origin === globalThis.location?.origin;
  const source = new Blob([`import ${JSON.stringify(address.href)};`], { type: "text/javascript" });
  const started = own ? address : URL.createObjectURL(source);
  return new Worker(started, { type: "module", name });
}

let gpuName = "WebGPU";

/** Why there is no WebGPU, or undefined if there is an adapter. */
async function noWebGpu() {
  if (!globalThis.navigator?.gpu) {
    return globalThis.isSecureContext === false
      ? "there is no WebGPU on a page that comes neither over https nor from localhost"
      : "this browser has no WebGPU (`navigator.gpu` is missing)";
  }
  try {
    const adapter = await navigator.gpu.requestAdapter();
    if (adapter) {
      const { description, vendor, architecture, device } = adapter.info ?? {};
      gpuName = description || [vendor, architecture, device].filter(Boolean).join(" ") || gpuName;
      return undefined;
    }
    return "this browser has WebGPU, but gives no adapter";
  } catch (e) {
    return `this browser has WebGPU, but gives no adapter: ${text(e)}`;
  }
}

/** The bytes of a response, with the progress told on the way. */
export async function download(response, address, progress) {
  if (!response.ok) {
    const status = [response.status, response.statusText].filter(Boolean).join(" ");
    throw new RecurveError("Fetch", `${address}: the server answered ${status}`);
  }
  // A compressed answer states its compressed size.
  const stated = response.headers.get("content-encoding") ? 0 : Number(response.headers.get("content-length") ?? 0);
  let total = Number.isSafeInteger(stated) ? stated : 0;
  if (response.bodyUsed) throw new RecurveError("Fetch", `${address}: the response has been read already`);
  const parts = [];
  let loaded = 0;
  progress?.({ loaded, total });
  const reader = response.body?.getReader();
  try {
    for (;;) {
      const { done, value } = reader ? await reader.read() : { done: true };
      if (done) break;
      parts.push(value);
      loaded += value.length;
      if (loaded > total) total = 0;
      progress?.({ loaded, total });
    }
  } catch (e) {
    reader.cancel().catch(() => {});
    // An abort, or an error of `progress`, is the caller's own.
    if (!(e instanceof TypeError)) throw e;
    throw new RecurveError("Fetch", `${address}: broke off after ${loaded} bytes (${text(e)})`, { cause: e });
  }
  try {
    const all = new Uint8Array(loaded);
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  } catch (e) {
    throw new RecurveError("OutOfMemory", `${address}: no memory for its ${loaded} bytes`, { cause: e });
  }
}

/** Fetches an address. */
export async function fetched(address, options) {
  try {
    return await fetch(address, options);
  } catch (e) {
    if (options?.signal?.aborted) throw options.signal.reason;
    const why = `${text(e)}; the server cannot be reached, or does not allow this page to read the file`;
    throw new RecurveError("Fetch", `${address}: cannot be fetched (${why})`, { cause: e });
  }
}

const compiled = new Map();

/** A file of WebAssembly, compiled once. */
function compile(file) {
  const address = new URL(`./wasm/${file}`, import.meta.url).href;
  if (!compiled.has(file)) {
    const get = async () => {
      const response = await fetched(address);
      const type = response.headers.get("content-type") ?? "";
      if (response.ok && type.startsWith("application/wasm")) return WebAssembly.compileStreaming(response);
      // Some servers do not know the type.
      return WebAssembly.compile(await download(response, address));
    };
    const module = get();
    compiled.set(file, module);
    module.catch(() => compiled.delete(file));
  }
  return compiled.get(file);
}

let instances = 0;

/** A module of WebAssembly with a memory of its own, and the devices that were opened in it. */
class Instance {
  /**
   * A module that computes.
   * @param kind "cpu" or "gpu"; with more than one thread "cpu"
   */
  static async start(kind, relaxed, threads) {
    const self = await Instance.open(`recurve_${kind}_${threads > 1 ? "threads_" : ""}${simd(relaxed)}`, threads);
    const device = self.js.Device.wasm();
    self.wasm = { kind: "wasm", device, name: device.name };
    return self;
  }

  /** A module by its name. */
  static async open(name, threads = 1) {
    const file = `${name}_bg.wasm`;
    const module = await compile(file);
    // The query makes a fresh instance of the glue, which holds one module for good.
    const glue = `./wasm/${name}.js${instances ? `?instance=${instances}` : ""}`;
    instances += 1;
    const address = new URL(glue, import.meta.url).href;
    const js = await import(/* @vite-ignore */ /* webpackIgnore: true */ address).catch((e) => {
      throw new RecurveError("Fetch", `${address}: cannot be imported (${text(e)})`, { cause: e });
    });
    const self = new Instance();
    self.file = name;
    self.js = js;
    self.address = address;
    self.pending = new Set();
    self.broken = undefined;
    self.threads = threads;
    self.workers = [];
    try {
      self.memory = (await js.default({ module_or_path: module })).memory ?? js.shared_memory();
      if (threads > 1) await self.startThreads(module);
    } catch (e) {
      self.end();
      if (e instanceof RecurveError) throw e;
      throw new RecurveError(e instanceof RangeError ? "OutOfMemory" : "Internal", `${name} cannot be started (${text(e)})`, { cause: e });
    }
    return self;
  }

  /** Starts the other threads. The engine's thread must not wait for a worker before that is there. */
  async startThreads(module) {
    const { address, memory } = this;
    const started = Array.from({ length: this.threads - 1 }, (_, n) => new Promise((resolve, reject) => {
      const worker = startWorker("./thread.js", `recurve-web thread ${n + 1}`);
      this.workers.push(worker);
      const fail = (why) => reject(new RecurveError("Worker", `a thread cannot be started (${why})`));
      worker.addEventListener("message", ({ data }) => (data.error ? fail(data.error) : resolve()), { once: true });
      worker.addEventListener("error", (e) => {
        e.preventDefault();
        fail(e.message || "its files cannot be loaded");
      });
      worker.postMessage({ address, module, memory });
    }));
    await Promise.all(started);
    this.js.start_threads(this.threads);
  }

  /** Ends the other threads. */
  end() {
    for (const worker of this.workers) worker.terminate();
    this.workers = [];
  }

  /** The GPU. A lost one is opened again. */
  async webgpu() {
    if (this.gpu && (await this.gpu.catch(() => undefined))?.device.lost === undefined) return this.gpu;
    const opened = this.call(() => this.js.Device.webgpu()).then((device) => ({
      kind: "webgpu", device, name: device.name || gpuName,
    }));
    this.gpu = opened;
    opened.catch(() => {
      if (this.gpu === opened) this.gpu = undefined;
    });
    return opened;
  }

  /**
   * A call into the module. If the module traps, nobody knows what its memory holds: all calls that wait are rejected,
   * and the module is not used again. A trap in the middle of an asynchronous call reaches the thread, not the promise.
   */
  call(f) {
    if (this.broken) return Promise.reject(this.broken);
    return new Promise((resolve, reject) => {
      const end = (settle) => (value) => {
        this.pending.delete(reject);
        settle(value);
      };
      this.pending.add(reject);
      watched.add(this);
      const fail = end((e) => reject(this.known(e)));
      try {
        Promise.resolve(f()).then(end(resolve), fail);
      } catch (e) {
        fail(e);
      }
    });
  }

  /** An error of the module as a RecurveError. */
  known(e) {
    if (e instanceof RecurveError) return e;
    if (e?.name === "RecurveError") return new RecurveError(e.kind, e.message);
    this.stop(e);
    return this.broken;
  }

  /** Frees an object of the module. One in a module that has stopped is only forgotten. */
  free(object) {
    if (this.broken) object?.__destroy_into_raw?.();
    else object?.free();
  }

  /** Gives the module up. */
  stop(e) {
    if (this.broken) return;
    let panic;
    try {
      panic = this.js.panic_message?.();
    } catch {
      // The message is lost with the memory.
    }
    // Rust traps without a message where memory cannot be had.
    const memory = e instanceof RangeError || (e instanceof WebAssembly.RuntimeError && !panic) ||
      /capacity overflow|memory allocation/.test(panic ?? "");
    const why = memory ? `${this.file} is out of memory` : `${this.file} stopped (${panic || text(e)})`;
    // A module that only reads files has no device.
    const lost = this.wasm ? "the models that it held are gone: load them again" : "the file was not read";
    this.broken = new RecurveError(memory ? "OutOfMemory" : "Internal", `${why}; ${lost}`, { cause: e });
    for (const reject of this.pending) reject(this.broken);
    this.pending.clear();
    this.end();
  }
}

// Instances in which a trap may come.
const watched = new Set();

function trapped(event) {
  const e = event.error ?? event.reason;
  if (!(e instanceof WebAssembly.RuntimeError || e instanceof RangeError)) return;
  for (const instance of watched) {
    // Calls into the module go through its glue.
    if (!e.stack?.includes(`${instance.address}:`)) continue;
    event.preventDefault();
    instance.stop(e);
    watched.delete(instance);
  }
}

/** Milliseconds of a call: the median over groups of calls, of 2 ms or more each; and the last result. */
async function measure(call) {
  let result = await call();
  const start = performance.now();
  result = await call();
  const first = performance.now() - start;
  const group = Math.max(1, Math.min(200, Math.ceil(2 / Math.max(first, 0.01))));
  const all = group === 1 ? [first] : [];
  let count = 1;
  while (count < 2 || (performance.now() - start < 150 && all.length < 25)) {
    const from = performance.now();
    for (let n = 0; n < group; n++) result = await call();
    all.push((performance.now() - from) / group);
    count += group;
  }
  all.sort((a, b) => a - b);
  return { ms: all[all.length >> 1], count, result };
}

const rounded = (ms) => Number(ms.toPrecision(3));

class Session {
  constructor(model, options) {
    this.model = model;
    this.options = options;
    this.disposed = false;
  }

  /** Makes the session on a runner. */
  static make(runner, { batch, states }) {
    return runner.session(batch, states);
  }

  usable() {
    if (this.disposed) throw new RecurveError("Disposed", "the session is disposed");
    this.model.usable();
    const lost = this.place.device.lost;
    if (lost !== undefined) {
      throw new RecurveError("DeviceLost",
        `the device was lost: ${lost}; the states of this session were on it: make a new session`);
    }
  }

  async run(inputs) {
    if (this.model.choosing) {
      await this.model.choose((runner) => {
        const session = Session.make(runner, this.options);
        return { run: () => session.run(inputs), free: () => this.model.instance.free(session) };
      });
      this.usable();
    }
    return this.model.call(() => this.inner.run(inputs));
  }

  free() {
    this.disposed = true;
    this.model.sessions.delete(this);
    const inner = this.inner;
    this.inner = undefined;
    this.model.instance.free(inner);
  }
}

class Model {
  constructor(engine, instance, place, runner) {
    Object.assign(this, { engine, instance, place, runner });
    this.sessions = new Set();
    this.choice = null;
    this.choosing = false;
    this.disposed = false;
    this.queue = Promise.resolve();
  }

  call(f) {
    return this.instance.call(f);
  }

  /** Runs `f` after the calls that came before it. */
  after(f) {
    const done = this.queue.then(f);
    this.queue = done.catch(() => {});
    return done;
  }

  usable() {
    if (this.disposed) throw new RecurveError("Disposed", "the model is disposed");
    if (this.instance.broken) throw this.instance.broken;
  }

  /** After a lost device a model with `auto` goes on with WebAssembly. */
  async recover() {
    const lost = this.place.device.lost;
    if (lost === undefined) return;
    if (!this.auto) throw new RecurveError("DeviceLost", `the device was lost: ${lost}; load the model again`);
    const gone = this.runner;
    this.runner = await this.call(() => gone.to(this.instance.wasm.device));
    this.place = this.instance.wasm;
    this.choice = { device: "wasm", ms: this.choice?.ms ?? {}, reason: `wasm, because the GPU was lost: ${lost}` };
    this.instance.free(gone);
  }

  status() {
    return {
      device: this.choosing ? "auto" : this.place.kind,
      deviceName: this.place.name,
      threads: this.choosing || this.place.kind === "wasm" ? this.instance.threads : 1,
      choice: this.choice,
    };
  }

  /**
   * Measures the same call on both devices and keeps the faster. `make` gives what is measured, from a runner. Both
   * runners are copies where calls change the model.
   */
  async choose(make) {
    const { instance } = this;
    const wasm = instance.wasm;
    const measured = async (runner) => {
      const calls = await this.call(() => make(runner));
      try {
        return await measure(() => this.call(() => calls.run()));
      } finally {
        calls.free();
      }
    };
    const spare = this.stateful ? await this.call(() => this.runner.to(wasm.device)) : undefined;
    let onWasm, onGpu, refused, refusedGpu, gpu, place;
    try {
      onWasm = await measured(spare ?? this.runner);
    } catch (e) {
      refused = e;
    }
    instance.free(spare);
    if (instance.broken) throw instance.broken;
    // The GPU would refuse these inputs too.
    if (refused?.kind === "Input") throw refused;
    try {
      place = await instance.webgpu();
      gpu = await this.call(() => this.runner.to(place.device));
      onGpu = await measured(gpu);
    } catch (e) {
      refusedGpu = e;
    }
    if (instance.broken) throw instance.broken;
    if (!onWasm && !onGpu) {
      instance.free(gpu);
      throw refused;
    }
    const ms = {};
    if (onWasm) ms.wasm = rounded(onWasm.ms);
    if (onGpu) ms.webgpu = rounded(onGpu.ms);
    const device = onWasm && (!onGpu || onWasm.ms <= onGpu.ms) ? "wasm" : "webgpu";
    const reason = !onGpu ? `wasm, because WebGPU refused: ${text(refusedGpu)}`
      : !onWasm ? `webgpu, because wasm refused: ${text(refused)}`
        : `${device}, because a call took ${ms.wasm} ms on wasm and ${ms.webgpu} ms on webgpu (medians of ` +
          `${onWasm.count} and ${onGpu.count} calls)`;
    if (device === "webgpu") {
      const states = await this.moved(gpu);
      if (this.stateful) {
        const used = gpu;
        gpu = await this.call(() => this.runner.to(place.device));
        instance.free(used);
      }
      for (const [session, inner] of states) {
        instance.free(session.inner);
        Object.assign(session, { inner, place });
      }
      instance.free(this.runner);
      this.runner = gpu;
      this.place = place;
    } else {
      instance.free(gpu);
    }
    this.choosing = false;
    this.choice = { device, ms, reason };
    return (device === "wasm" ? onWasm : onGpu).result;
  }

  /** The sessions on another runner. They have not run yet, but their states may have been set. */
  async moved(runner) {
    const all = [];
    for (const session of this.sessions) {
      const inner = await this.call(() => Session.make(runner, session.options));
      for (const name of session.set) {
        const state = await this.call(() => session.inner.state(name));
        await this.call(() => inner.set_state(name, state));
      }
      all.push([session, inner]);
    }
    return all;
  }

  async run(inputs) {
    if (this.choosing) {
      const make = (runner) => ({ run: () => runner.run(inputs), free() {} });
      const result = await this.choose(make);
      // What was measured on a copy has not run on the model itself.
      if (!this.stateful) return result;
    }
    return this.call(() => this.runner.run(inputs));
  }

  free() {
    this.disposed = true;
    for (const session of [...this.sessions]) session.free();
    this.instance.free(this.runner);
    this.runner = undefined;
  }
}

/** The buffers of arrays that can be given away. */
function buffers(arrays) {
  const all = new Set();
  for (const a of arrays) all.add(a.data.buffer);
  return [...all];
}

/** Models and sessions by number. */
export class Engine {
  constructor() {
    this.models = new Map();
    this.sessions = new Map();
    this.started = new Map();
    this.last = 0;
    globalThis.addEventListener?.("error", trapped);
    globalThis.addEventListener?.("unhandledrejection", trapped);
  }

  /** A module of WebAssembly that works: the one that was started before, unless it broke. */
  async module(key, start) {
    if (!this.started.has(key) || (await this.started.get(key).catch(() => undefined))?.broken) {
      const started = start();
      this.started.set(key, started);
      started.catch(() => {
        if (this.started.get(key) === started) this.started.delete(key);
      });
    }
    return this.started.get(key);
  }

  /** A module that computes. */
  instance(kind, relaxed, threads = 1) {
    return this.module(`${kind} ${relaxed} ${threads}`, () => Instance.start(kind, relaxed, threads));
  }

  /** A Keras file as a file that modules that compute can read, and notes: `[bytes, notes]`. */
  async native(bytes) {
    const reader = await this.module("keras", () => Instance.open("recurve_keras"));
    return reader.call(() => reader.js.convert(bytes));
  }

  /** The module for WebAssembly alone. "auto" does without threads where they cannot be started. */
  async forWasm(relaxed, asked) {
    const threads = this.withoutThreads && asked === "auto" ? 1 : threadCount(asked, relaxed);
    try {
      return await this.instance("cpu", relaxed, threads);
    } catch (e) {
      if (threads === 1 || asked !== "auto") throw e;
      this.withoutThreads = true;
      return this.instance("cpu", relaxed);
    }
  }

  /** Answers a request: `{ value, transfer, status }`. Throws a RecurveError. */
  async request({ op, model, session, args = [] }) {
    if (op in this.global) return this.global[op].apply(this, args);
    const m = this.models.get(model);
    const s = session === undefined ? undefined : this.sessions.get(session);
    if (!m) throw new RecurveError("Disposed", "the model is disposed");
    if (session !== undefined && !s) throw new RecurveError("Disposed", "the session is disposed");
    return m.after(async () => {
      const answer = await (s ? this.forSession : this.forModel)[op].call(this, s ?? m, ...args).catch((e) => {
        if (e instanceof RecurveError) e.status = m.disposed ? undefined : m.status();
        throw e;
      });
      return { ...answer, status: m.disposed ? undefined : m.status() };
    });
  }

  global = {
    async open({ bytes, name, device, relaxed, threads }) {
      const missing = device === "wasm" ? undefined : await noWebGpu();
      if (missing && device === "webgpu") throw new RecurveError("NoDevice", `${missing}; use "wasm" or "auto"`);
      const instance = await (device === "wasm" || missing ? this.forWasm(relaxed, threads) : this.instance("gpu", relaxed));
      const place = device === "webgpu" ? await instance.webgpu() : instance.wasm;
      // Only pages with such files load what reads them.
      const keras = await instance.call(() => instance.js.is_keras(bytes.subarray(0, 64)));
      let notes = [];
      if (keras) [bytes, notes] = await this.native(bytes);
      const runner = await instance.call(() => instance.js.Runner.open(bytes, name, place.device));
      const model = new Model(this, instance, place, runner);
      const about = await instance.call(() => runner.describe());
      about.notes = [...notes, ...about.notes];
      // Calls of a stateful model change it. Whoever does not say is taken for one.
      model.stateful = about.stateful !== false;
      if (device === "auto") {
        model.auto = true;
        if (missing) model.choice = { device: "wasm", ms: {}, reason: `wasm, because ${missing}` };
        else model.choosing = true;
      }
      const id = ++this.last;
      this.models.set(id, model);
      return { value: { id, about }, status: model.status() };
    },

    async devices() {
      const missing = await noWebGpu();
      const instance = await this.instance(missing ? "cpu" : "gpu", true);
      const places = [instance.wasm];
      if (!missing) {
        // An adapter that gives no device is none.
        const gpu = await instance.webgpu().catch(() => undefined);
        if (gpu) places.unshift(gpu);
      }
      return { value: places.map((p) => (
        { device: p.kind, name: p.name, threads: p.kind === "wasm" ? threadCount("auto", true) : 1 })) };
    },

    /** For tests: ends the GPU's devices as a reset of the GPU would. */
    async destroy() {
      let count = 0;
      for (const started of this.started.values()) {
        const gpu = await (await started).gpu;
        if (gpu) {
          gpu.device.destroy();
          count += 1;
        }
      }
      return { value: count };
    },

    /** For tests: a part of a call panics in a thread of each module that has several. */
    async panic() {
      for (const started of this.started.values()) {
        const instance = await started;
        if (instance.threads > 1) await instance.call(() => instance.js.panic_in_worker());
      }
      return {};
    },

    /** For tests: the files of WebAssembly in use and the sizes of their memories; models and sessions. */
    async memory() {
      const modules = [];
      for (const started of this.started.values()) {
        const { file, memory, workers } = await started;
        modules.push({ file, bytes: memory.buffer.byteLength, workers: workers.length });
      }
      return { value: { modules, models: this.models.size, sessions: this.sessions.size } };
    },
  };

  forModel = {
    async run(m, inputs) {
      m.usable();
      await m.recover();
      const outputs = await m.run(inputs);
      return { value: outputs, transfer: buffers(Object.values(outputs)) };
    },

    async session(m, options) {
      m.usable();
      await m.recover();
      const session = new Session(m, options);
      session.inner = await m.call(() => Session.make(m.runner, options));
      session.place = m.place;
      session.set = new Set();
      m.sessions.add(session);
      const id = ++this.last;
      session.id = id;
      this.sessions.set(id, session);
      return { value: id };
    },

    async readText(m, string) {
      m.usable();
      await m.recover();
      const readings = m.choosing
        ? await m.choose((runner) => ({ run: () => runner.read_text(string), free() {} }))
        : await m.call(() => m.runner.read_text(string));
      return { value: readings };
    },

    async dispose(m) {
      if (m.disposed) return {};
      for (const session of m.sessions) this.sessions.delete(session.id);
      m.free();
      for (const [id, model] of this.models) if (model === m) this.models.delete(id);
      return {};
    },
  };

  forSession = {
    async run(s, inputs) {
      s.usable();
      const outputs = await s.run(inputs);
      return { value: outputs, transfer: buffers(Object.values(outputs)) };
    },

    async states(s) {
      s.usable();
      return { value: await s.model.call(() => s.inner.states()) };
    },

    async state(s, name) {
      s.usable();
      const value = await s.model.call(() => s.inner.state(name));
      return { value, transfer: buffers([value]) };
    },

    async setState(s, name, array) {
      s.usable();
      await s.model.call(() => s.inner.set_state(name, array));
      s.set.add(name);
      return {};
    },

    async reset(s) {
      s.usable();
      await s.model.call(() => s.inner.reset());
      s.set.clear();
      return {};
    },

    async dispose(s) {
      if (s.disposed) return {};
      this.sessions.delete(s.id);
      s.free();
      return {};
    },
  };
}
