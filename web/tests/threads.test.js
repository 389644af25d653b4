// Several threads for one call: numbers, memory, panics, ends of workers, and what is refused.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { recurrentLayer } from "../demo/bench/onnx.js";
import { compare, npz, numbers } from "./lib/arrays.js";
import { parts, sileroCalls } from "./lib/audio.js";
import { file, launch, open, perform, start, stop } from "./lib/browser.js";
import { serve } from "./lib/server.js";

const audio = npz(file("tests/fixtures/audio.npz"));
const keras = npz(file("tests/fixtures/keras_files.npz"));
const THREADS = { device: "wasm", threads: 2 };
const LSTM = Buffer.from(recurrentLayer({ cell: "LSTM", inputs: 128, units: 128, batch: 16 }).bytes);
const x = { data: numbers(256 * 16 * 128), dims: [256, 16, 128] };

/** The threads of workers in a browser's pages: seconds of the processor that each has used. */
async function workers(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  const all = new Map();
  for (const { id, type } of processInfo) {
    if (type !== "renderer") continue;
    for (const thread of readdirSync(`/proc/${id}/task`)) {
      const at = `/proc/${id}/task/${thread}`;
      try {
        if (readFileSync(`${at}/comm`, "utf8").trim() !== "DedicatedWorker") continue;
        const fields = readFileSync(`${at}/stat`, "utf8").split(") ")[1].split(" ");
        all.set(`${id}/${thread}`, (Number(fields[11]) + Number(fields[12])) / 100);
      } catch {
        // The thread has ended meanwhile.
      }
    }
  }
  return all;
}

describe("a page that is cross-origin isolated", () => {
  let server, browser, page;
  before(async () => ({ server, browser, page } = await start({ isolated: true })));
  after(() => stop({ server, browser, page }));

  for (const where of ["page", "inner"]) {
    const job = (model, options, steps) => perform(page, where, { model, options: { device: "wasm", ...options }, steps });

    test(`numbers are those of one thread: ${where === "page" ? "worker of the package" : "in a worker of the page"}`, async () => {
      const frames = parts(audio("frames"), [1, 257, 1, 2]);
      for (const [model, output, steps, want] of [
        ["/models/silero_vad.onnx", "output", sileroCalls(), audio("probabilities")],
        ["/models/gtcrn.onnx", "enh", frames.map((mix) => ({ mix })), audio("enhanced")],
      ]) {
        const { results, about } = await job(model, { threads: 2 }, [{ session: {} }, ...steps.map((step) => ({ step }))]);
        assert.equal(about.threads, 2);
        compare(results.slice(1).flatMap((r) => [...r[output].data]), want.data, { abs: 1e-4 });
      }
      const [one, two] = [await job(LSTM, { threads: 1 }, [{ run: { x } }]), await job(LSTM, { threads: 2 }, [{ run: { x } }])];
      assert.deepEqual([one.about.threads, two.about.threads], [1, 2]);
      compare(two.results[0].y, one.results[0].y, { abs: 1e-6 });
      assert.ok(one.results[0].y.data.some((v) => Math.abs(v) > 0.1), "the outputs are not all small");
      const index = JSON.parse(Buffer.from(keras("index").data).toString());
      let count = 0;
      for (const path of index.files.filter((f) => f.endsWith(".keras"))) {
        const name = path.slice(0, -".keras".length);
        const about = index.cases[name];
        if (!about || name === "stateful") continue;
        count += 1;
        const inputs = Object.fromEntries(about.inputs.map((i) => [i, keras(`${name}/in/${i}`)]));
        const { results } = await job(keras(`file/${path}`).data, { threads: 2 }, [{ run: inputs }]);
        Object.values(results[0]).forEach((y, n) => compare(y, keras(`${name}/out/${n}`), { abs: 2e-5 }));
      }
      assert.ok(count > 5, `${count} files of Keras`);
    });
  }

  test("threads share the work of a batch", async () => {
    const used = async (threads) => {
      const earlier = await workers(browser);
      await perform(page, "page", { model: LSTM, options: { device: "wasm", threads }, steps: Array(30).fill({ run: { x } }) });
      const seconds = [...await workers(browser)].map(([id, s]) => s - (earlier.get(id) ?? 0));
      return seconds.sort((a, b) => b - a);
    };
    const [one, two] = [await used(1), await used(2)];
    console.log(`processor time of the workers: one thread ${one.map((s) => s.toFixed(2))}; two ${two.map((s) => s.toFixed(2))}`);
    assert.ok(one[1] < 0.05 * one[0], "one thread computes alone");
    assert.ok(two[1] > 0.1 * two[0], "a second thread computes too");
  });

  test("200 calls take no more memory", async () => {
    const got = await page.evaluate(async ([bytes, length]) => {
      const model = await recurve.load(Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0)), { device: "wasm", threads: 2 });
      const x = { data: new Float32Array(length), dims: [256, 16, 128] };
      const size = async () => (await recurve.testing.ask("memory")).modules.map((m) => [m.file, m.bytes]);
      for (let n = 0; n < 20; n++) await model.run({ x });
      const before = await size();
      for (let n = 0; n < 200; n++) await model.run({ x });
      const after = await size();
      await model.dispose();
      return { before, after };
    }, [LSTM.toString("base64"), x.data.length]);
    assert.ok(got.before.some(([file]) => file === "recurve_cpu_threads_relaxed"), JSON.stringify(got.before));
    assert.deepEqual(got.after, got.before);
  });

  for (const where of ["page", "inner"]) {
    test(`a panic in a thread rejects the call, and the module is given up: ${where}`, async () => {
      const here = await open(browser, server);
      const got = await here.evaluate(async (where) => {
        const work = async (recurve) => {
          const caught = (p) => p.then((v) => v, (e) => [e.kind, e.message]);
          const inputs = { input: { data: new Float32Array(576), dims: [1, 576] }, sr: { data: [16000], dims: [] } };
          const load = (threads) => recurve.load(new URL("/models/silero_vad.onnx", location.origin), { device: "wasm", threads });
          const [model, other] = [await load(3), await load(1)];
          const session = await model.session();
          await session.run(inputs);
          const all = [await caught(recurve.testing.ask("panic")), await caught(session.run(inputs)), await caught(model.session())];
          await model.dispose();
          const left = (await recurve.testing.ask("memory")).modules.map((m) => m.workers);
          const again = await (await load(3)).session();
          const fresh = Object.keys(await again.run(inputs));
          return { all, left, fresh, other: Object.keys(await (await other.session()).run(inputs)) };
        };
        if (where === "page") return work(recurve);
        const source = `import * as recurve from "${location.origin}/dist/index.js";
          (${work})(recurve).then((v) => postMessage(v), (e) => postMessage(String(e)));`;
        const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })), { type: "module" });
        return new Promise((done) => worker.addEventListener("message", ({ data }) => done(data)));
      }, where);
      for (const [kind, message] of got.all) {
        assert.equal(kind, "Internal", message);
        assert.match(message, /recurve_cpu_threads_relaxed stopped \(.*a panic in a worker.*\); .*load them again/s);
      }
      assert.deepEqual(got.left, [0, 0], "no worker of a module that has been given up is left");
      assert.deepEqual([got.fresh, got.other], [["output"], ["output"]]);
      assert.deepEqual(here.problems, []);
      await here.close();
    });
  }

  test("threads end with the worker whose they are, and the next model gets new ones", async () => {
    const own = await launch();
    const here = await open(own, server);
    const load = () => here.evaluate(async () => {
      const caught = (p) => p.then((v) => v, (e) => [e.kind, e.message]);
      const model = await recurve.load("/models/silero_vad.onnx", { device: "wasm", threads: 3 });
      globalThis.model = model;
      return [model.threads, (await caught(model.session())) instanceof Array];
    });
    assert.deepEqual(await load(), [3, false]);
    assert.equal((await workers(own)).size, 3);
    const ended = await here.evaluate(async () => {
      const caught = (p) => p.then((v) => v, (e) => [e.kind, e.message]);
      return [await caught(recurve.testing.ask("close")), await caught(model.session())];
    });
    for (const [kind, message] of ended) {
      assert.equal(kind, "Worker");
      assert.match(message, /the worker has ended/);
    }
    for (let n = 0; n < 100 && (await workers(own)).size > 0; n++) await new Promise((done) => setTimeout(done, 100));
    assert.equal((await workers(own)).size, 0);
    assert.deepEqual(await load(), [3, false]);
    assert.equal((await workers(own)).size, 3);
    await own.close();
  });

  test("one thread is the default; auto takes several; what is impossible is refused", async () => {
    const got = await page.evaluate(async () => {
      const load = (options) => recurve.load("/models/gtcrn.onnx", options).then((m) => m.threads, (e) => [e.kind, e.message]);
      return {
        cores: navigator.hardwareConcurrency,
        one: await load({ device: "wasm" }),
        auto: await load({ device: "wasm", threads: "auto" }),
        refused: [
          await load({ device: "wasm", threads: 2, worker: false }),
          await load({ device: "wasm", threads: 2, relaxedSimd: false }),
          await load({ threads: 2 }),
          ...await Promise.all([0, 1.5, "2", 33, null].map((threads) => load({ device: "wasm", threads }))),
        ],
        fallback: await load({ device: "wasm", threads: "auto", worker: false }),
        devices: (await recurve.devices()).map((d) => [d.device, d.threads]),
      };
    });
    const several = Math.min(got.cores, 4);
    assert.deepEqual([got.one, got.auto, got.fallback], [1, several, 1]);
    assert.deepEqual(got.devices, [["webgpu", 1], ["wasm", several]]);
    const [main, simd, device, ...values] = got.refused;
    assert.equal(main[0], "Unsupported");
    assert.match(main[1], /`threads`: 2 threads are not possible: .*own thread.*`worker: false`/);
    assert.equal(simd[0], "Unsupported");
    assert.match(simd[1], /`threads`: 2 threads are not possible: .*`relaxedSimd: false`/);
    assert.equal(device[0], "Argument");
    assert.match(device[1], /`threads`: several threads need `device: "wasm"`, but `device` is "auto"/);
    for (const [n, said] of ["0", "1.5", '"2"', "33", "null"].entries()) {
      assert.equal(values[n][0], "Argument");
      assert.equal(values[n][1], `load: \`threads\`: expected "auto" or a whole number from 1 to 32, got ${said}`);
    }
  });
});

for (const [about, options, kind, message] of [
  ["a page without the headers", {}, "Unsupported", /Cross-Origin-Opener-Policy.*Cross-Origin-Embedder-Policy/],
  ["a package without the module", { isolated: true, missing: (path) => path.includes("_threads_") }, "Fetch", /_threads_.*404/],
  ["a package without the worker of threads", { isolated: true, missing: (path) => path.endsWith("/thread.js") }, "Worker",
    /a thread cannot be started/],
]) {
  test(`${about} has one thread, and refuses several`, async () => {
    const server = await serve(options);
    const browser = await launch({ webgpu: false });
    const page = await open(browser, server);
    const got = await page.evaluate(async () => {
      const inputs = { input: { data: new Float32Array(576), dims: [1, 576] }, sr: { data: [16000], dims: [] } };
      const load = async (options) => {
        try {
          const model = await recurve.load("/models/silero_vad.onnx", options);
          return [model.threads, ...Object.keys(await (await model.session()).run(inputs))];
        } catch (e) {
          return [e.kind, e.message];
        }
      };
      return [await load({ device: "wasm", threads: 2 }), await load({ device: "wasm", threads: "auto" }), await load({}),
        await load({ threads: "auto" })];
    });
    assert.equal(got[0][0], kind);
    assert.match(got[0][1], message);
    assert.deepEqual(got.slice(1), Array(3).fill([1, "output"]));
    assert.deepEqual(page.problems, []);
    await browser.close();
    await server.close();
  });
}
