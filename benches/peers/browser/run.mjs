// Recurve beside ONNX Runtime Web and TF.js in one browser.
//
//     cargo xtask web build                             # the package, in web/dist
//     cd benches/peers/browser && npm ci
//     node run.mjs [--csv FILE] [--rounds 5] [--seconds 0.5] [--cases silero,gtcrn,lstm_wasm,…]
//                  [--libraries recurve,onnxruntime,tfjs] [--dist FOLDER] [--chromium PROGRAM]
//
// Every contender has a page of its own, opened before the rounds; a round asks every page in turn, beginning with
// another one each time. What a page says is the median of its calls; the table shows the median of the rounds, from
// the caller's arrays to arrays of the caller. Before anything is timed the outputs must agree to 1e-4: those of layers
// with their definition in f64, those of streams with the first library's.
//
// Places: `worker` is a worker of the benchmark that holds the library (Recurve with `worker: false`); this compares
// the libraries' computing. `page` is the library as its users have it on a page: Recurve computes in its own worker,
// ONNX Runtime Web and TF.js on the page's thread; `page, proxy` is ONNX Runtime Web with `env.wasm.proxy`.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";

import { chromium } from "playwright-core";

import { STREAMS, kerasLstm, reference } from "./models.mjs";
import { onnx } from "./onnx.mjs";
import { serve } from "./serve.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = join(HERE, "..", "..", "..");

const { values: options } = parseArgs({
  options: {
    csv: { type: "string" },
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "0.5" },
    cases: { type: "string" },
    libraries: { type: "string", default: "recurve,onnxruntime,tfjs" },
    dist: { type: "string", default: join(ROOT, "web", "dist") },
    chromium: { type: "string", default: "/usr/bin/chromium" },
  },
});
const ROUNDS = number("rounds", 1);
const SECONDS = number("seconds", 0);
const LIBRARIES = options.libraries.split(",");
if (LIBRARIES.includes("recurve") && !existsSync(join(options.dist, "index.js")))
  throw new Error(`--dist: there is no package in ${options.dist}; \`cargo xtask web build\` makes it`);

function number(name, least) {
  const value = Number(options[name]);
  if (!(value >= least)) throw new Error(`--${name}: expected a number of at least ${least}, got ${options[name]}`);
  return value;
}

// Cases ---------------------------------------------------------------------------------------------------------------

const CORES = cpus().length;
const ours = (device, place, more = {}) => ({ library: "recurve", device, place, threads: 1, ...more });
const ort = (device, place, more = {}) => ({ library: "onnxruntime", device, place, threads: 1, ...more });
const tf = (device, place, more = {}) => ({ library: "tfjs", device, place, threads: 1, ...more });
/** One thread for each core; ONNX Runtime Web also with the threads that it takes by itself. */
const THREADS = [
  ort("wasm", "worker", { threads: 0 }),
  ort("wasm", "worker", { threads: CORES }),
  ours("wasm", "worker", { threads: CORES }),
];

const STREAM = [
  ours("wasm", "worker"),
  ort("wasm", "worker"),
  ...THREADS,
  ours("wasm", "page"),
  ort("wasm", "page"),
  ort("wasm", "page", { proxy: true }),
];
const ON_WASM = [ours("wasm", "worker"), ort("wasm", "worker"), ...THREADS];
const ON_WEBGPU = [ours("webgpu", "worker"), ort("webgpu", "worker")];
/** ONNX Runtime Web's build that waits for the GPU by JSPI and not by rewritten code. */
const JSPI = ort("webgpu", "worker", { build: "jspi" });
const ON_PAGE = [
  ours("wasm", "page"),
  ort("wasm", "page"),
  ort("wasm", "page", { proxy: true }),
  tf("wasm", "page"),
  ours("webgpu", "page"),
  ort("webgpu", "page"),
  tf("webgpu", "page"),
];
const FIRST_WASM = [ours("wasm", "page"), ort("wasm", "page"), tf("wasm", "page")];
const FIRST_WEBGPU = [ours("webgpu", "page"), ort("webgpu", "page"), tf("webgpu", "page")];
const withTf = (list, device) => [...list, tf(device, "worker")];

const CASES = {
  silero: { label: "silero-vad, a frame", kind: "silero", batch: 1, contenders: STREAM, how: times },
  gtcrn: { label: "GTCRN, a frame", kind: "gtcrn", batch: 1, contenders: STREAM, how: times },
  lstm_wasm: layer("lstm", 1, "wasm", withTf(ON_WASM, "wasm")),
  lstm16_wasm: layer("lstm", 16, "wasm", withTf(ON_WASM, "wasm")),
  gru_wasm: layer("gru", 1, "wasm", ON_WASM),
  gru16_wasm: layer("gru", 16, "wasm", ON_WASM),
  lstm_webgpu: layer("lstm", 1, "webgpu", withTf([...ON_WEBGPU, JSPI], "webgpu")),
  lstm16_webgpu: layer("lstm", 16, "webgpu", withTf(ON_WEBGPU, "webgpu")),
  gru_webgpu: layer("gru", 1, "webgpu", [...ON_WEBGPU, JSPI]),
  gru16_webgpu: layer("gru", 16, "webgpu", ON_WEBGPU),
  longest_task: {
    label: "LSTM T=256 H=128 B=16, longest task of the page's thread",
    kind: "lstm",
    batch: 16,
    contenders: ON_PAGE,
    how: tasks,
  },
  first_silero: { label: "silero-vad, first result, wasm", kind: "silero", batch: 1, contenders: FIRST_WASM, how: firsts },
  first_lstm_wasm: { label: "LSTM B=1, first result, wasm", kind: "lstm", batch: 1, contenders: FIRST_WASM, how: firsts },
  first_lstm_webgpu: { label: "LSTM B=1, first result, webgpu", kind: "lstm", batch: 1, contenders: FIRST_WEBGPU, how: firsts },
};

function layer(kind, batch, device, contenders) {
  return { label: `${kind.toUpperCase()} T=256 I=H=128 B=${batch}, ${device}`, kind, batch, contenders, how: times };
}

const wanted = options.cases?.split(",") ?? Object.keys(CASES);
for (const name of wanted)
  if (!CASES[name]) throw new Error(`--cases: there is no ${name}; there are ${Object.keys(CASES).join(", ")}`);

// Results -------------------------------------------------------------------------------------------------------------

const rows = [];

const version = (name) => JSON.parse(readFileSync(join(HERE, "node_modules", name, "package.json"))).version;
const NAMES = {
  recurve: "Recurve",
  onnxruntime: `onnxruntime-web ${version("onnxruntime-web")}`,
  tfjs: `TF.js ${version("@tensorflow/tfjs")}`,
};
const backend = (spec) => spec.device + (spec.build ? `, ${spec.build}` : "");
const place = (spec) => spec.place + (spec.proxy ? ", proxy" : "");

function record(label, spec, threads, round, value, unit) {
  rows.push([label, NAMES[spec.library], backend(spec), place(spec), threads, round, value, unit]);
}

function median(values) {
  const sorted = values.slice().sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The table of a case: medians of the rounds, and Recurve's part of each in the same place with as many threads. */
function show(label, unit) {
  const groups = new Map();
  for (const [l, library, device, where, threads, , value, u] of rows) {
    if (l !== label || u !== unit) continue;
    const key = [library, device, where, threads].join("\t");
    groups.set(key, [...(groups.get(key) ?? []), value]);
  }
  console.log(`\n${label} (${unit})`);
  for (const key of [...groups.keys()].sort()) {
    const values = groups.get(key);
    const [library, device, where, threads] = key.split("\t");
    const recurve = (count) => groups.get(["Recurve", device.split(",")[0], where.split(",")[0], count].join("\t"));
    const like = library === "Recurve" ? undefined : (recurve(threads) ?? recurve("1"));
    const part = like ? `Recurve / it ${(median(like) / median(values)).toFixed(2)}` : "";
    const name = `${library}, ${device}, ${where}, ${threads} thread${threads === "1" ? "" : "s"}`;
    const spread = `${Math.min(...values).toPrecision(4)} … ${Math.max(...values).toPrecision(4)}`;
    console.log(`  ${name.padEnd(62)} ${median(values).toPrecision(4).padStart(8)}   ${spread.padEnd(20)} ${part}`);
  }
}

// Running -------------------------------------------------------------------------------------------------------------

const made = {};
for (const kind of ["lstm", "gru"]) made[`/models/${kind}.onnx`] = onnx(kind);
const { kernel, recurrent, bias } = kerasLstm();
made["/models/lstm.keras.bin"] = Buffer.concat(
  [kernel, recurrent, bias].map((a) => Buffer.from(a.buffer, a.byteOffset, a.byteLength)),
);
const server = await serve(
  {
    "/node_modules/": join(HERE, "node_modules"),
    "/models/": join(ROOT, "models"),
    "/dist/": options.dist,
    "/": HERE,
  },
  made,
);
const browser = await chromium.launch({
  executablePath: options.chromium,
  args: [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
  ],
});

async function pageFor(spec, context) {
  const page = await context.newPage();
  page.on("console", (message) => {
    if (message.type() === "error") console.error(`${NAMES[spec.library]}: ${message.text()}`);
  });
  await page.goto(`${server.address}/page.html?place=${spec.place}`);
  await page.waitForFunction(() => !!globalThis.ask);
  const asked = async (message) => {
    try {
      return await page.evaluate((m) => globalThis.ask(m), message);
    } catch (error) {
      throw new Error(`${NAMES[spec.library]}, ${backend(spec)}, ${place(spec)}: ${error.message}`, { cause: error });
    }
  };
  return { page, asked };
}

const specs = (test) =>
  test.contenders
    .filter((c) => LIBRARIES.includes(c.library))
    .filter((c) => c.library !== "tfjs" || test.kind === "lstm")
    .map((c) => ({ ...c, kind: test.kind, batch: test.batch }));

/** Refuses outputs that are not the wanted ones to 1e-4, of the larger of 1 and the value. */
function agree(given, want, who) {
  if (given.length !== want.length) throw new Error(`${who}: ${given.length} numbers instead of ${want.length}`);
  let largest = 0;
  for (let k = 0; k < want.length; k++) {
    const off = Math.abs(given[k] - want[k]);
    if (!(off <= 1e-4 * Math.max(1, Math.abs(want[k]))))
      throw new Error(`${who}: number ${k} is ${given[k]} instead of ${want[k]}; nothing is timed`);
    largest = Math.max(largest, Math.abs(want[k]));
  }
  if (!(largest > 1e-3)) throw new Error(`${who}: all numbers are near 0, which compares nothing`);
}

/** Opens a page for each contender, and compares their numbers. */
async function opened(test, context) {
  const open = [];
  let want = STREAMS[test.kind] ? null : reference(test.kind, test.batch);
  for (const spec of specs(test)) {
    const { page, asked } = await pageFor(spec, context);
    const { threads } = await asked({ ask: "open", spec });
    if (spec.threads === 0 && threads === 1) {
      console.log(`  ${NAMES[spec.library]} takes 1 thread by itself in ${place(spec)}: no row of its own`);
      await page.close();
      continue;
    }
    const given = await asked({ ask: "numbers", count: STREAMS[test.kind] ? 20 : 1 });
    const who = `${test.label}: ${NAMES[spec.library]}, ${backend(spec)}, ${place(spec)}`;
    agree(given, want ?? given, who);
    want ??= given;
    await asked({ ask: "warm", seconds: SECONDS });
    open.push({ spec, page, asked, threads });
  }
  return open;
}

/** Every contender of a round, beginning with another one each round. */
async function rounds(list, one) {
  for (let round = 1; round <= ROUNDS; round++)
    for (let k = 0; k < list.length; k++) await one(list[(k + round) % list.length], round);
}

async function times(test) {
  const context = await browser.newContext();
  await rounds(await opened(test, context), async ({ spec, asked, threads }, round) => {
    const { ms } = await asked({ ask: "time", seconds: SECONDS });
    record(test.label, spec, threads, round, ms, "ms");
  });
  await context.close();
  show(test.label, "ms");
}

/** The longest task of the page's thread while it calls the library, from the browser's own trace. */
async function tasks(test) {
  const context = await browser.newContext();
  await rounds(await opened(test, context), async ({ spec, page, threads }, round) => {
    await browser.startTracing(page, { categories: ["toplevel", "blink.user_timing"] });
    await page.evaluate(async (seconds) => {
      performance.mark("calls begin");
      await globalThis.ask({ ask: "time", seconds, turns: true });
      performance.mark("calls end");
    }, SECONDS);
    const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
    const begin = traceEvents.find((e) => e.name === "calls begin");
    const end = traceEvents.find((e) => e.name === "calls end");
    const during = traceEvents.filter(
      (e) => e.name === "ThreadControllerImpl::RunTask" && e.pid === begin.pid && e.tid === begin.tid,
    );
    const within = during.filter((e) => e.ts + e.dur > begin.ts && e.ts < end.ts);
    if (!within.length) throw new Error("the browser's trace has no tasks of the page");
    record(test.label, spec, threads, round, Math.max(...within.map((e) => e.dur)) / 1000, "ms");
  });
  await context.close();
  show(test.label, "ms");
}

/** From the first byte of the library to the first result, in a browser context without caches; and what was fetched. */
async function firsts(test) {
  const { label } = test;
  const list = specs(test);
  await rounds(list, async (spec, round) => {
    const context = await browser.newContext();
    const { asked } = await pageFor(spec, context);
    server.taken();
    const ms = await asked({ ask: "first", spec });
    record(label, spec, 1, round, ms, "ms");
    if (round === 1) {
      const files = server.taken().filter(([path]) => /^\/(node_modules|dist)\//.test(path));
      const contents = files.map(([, file]) => readFileSync(file));
      const sum = (sizes) => sizes.reduce((a, b) => a + b, 0) / 1e6;
      record(label, spec, 1, round, sum(contents.map((c) => c.length)), "MB");
      record(label, spec, 1, round, sum(contents.map((c) => gzipSync(c, { level: 9 }).length)), "MB gzip");
    }
    await context.close();
  });
  for (const unit of ["ms", "MB", "MB gzip"]) show(label, unit);
}

try {
  const context = await browser.newContext();
  const { page } = await pageFor({ library: "recurve", place: "page" }, context);
  const machine = await page.evaluate(async () => {
    const adapter = await navigator.gpu?.requestAdapter();
    // One function that holds an instruction of the set: i8x16.popcnt, and f32x4.relaxed_madd.
    const has = (...code) =>
      WebAssembly.validate(
        Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, code.length + 4, 1, code.length + 2, 0, ...code, 11),
      );
    const zero = [65, 0, 253, 15];
    return {
      simd: has(...zero, 253, 98) ? (has(...zero, ...zero, ...zero, 253, 133, 2) ? "relaxed SIMD" : "SIMD") : "no SIMD",
      isolated: crossOriginIsolated,
      cores: navigator.hardwareConcurrency,
      adapter: adapter ? `${adapter.info.vendor} ${adapter.info.architecture}` : "no WebGPU",
    };
  });
  await context.close();
  const lines = [
    `# ${cpus()[0].model}, ${machine.cores} cores, Chromium ${browser.version()}, ${machine.simd}, WebGPU: ${machine.adapter}, ` +
      `cross-origin ${machine.isolated ? "isolated" : "shared"}; ${NAMES.onnxruntime}, ${NAMES.tfjs}`,
    `# node run.mjs --rounds ${ROUNDS} --seconds ${SECONDS} --csv FILE`,
  ];
  console.log(lines[0]);
  for (const name of wanted) await CASES[name].how(CASES[name]);
  if (options.csv) {
    const cell = (value) => {
      const text = typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(5) : String(value);
      return text.includes(",") ? `"${text}"` : text;
    };
    const table = [["case", "library", "backend", "place", "threads", "round", "value", "unit"], ...rows];
    writeFileSync(options.csv, [...lines, ...table.map((r) => r.map(cell).join(","))].join("\n") + "\n");
  }
} finally {
  await browser.close();
  server.close();
}
