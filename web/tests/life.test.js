// Sessions, the choice of a device, lost devices, workers that die, pages without WebGPU, and several pages.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import * as onnx from "../demo/bench/onnx.js";
import { compare, npz, numbers } from "./lib/arrays.js";
import { parts } from "./lib/audio.js";
import { file, launch, open, perform, start, stop } from "./lib/browser.js";
import { serve } from "./lib/server.js";

const audio = npz(file("tests/fixtures/audio.npz"));
const frames = parts(audio("frames"), [1, 257, 1, 2]);
const enhanced = parts(audio("enhanced"), [1, 257, 1, 2]);
const BOUND = { abs: 1e-4 };

let server, browser, page;
before(async () => ({ server, browser, page } = await start()));
after(() => stop({ server, browser, page }));

for (const device of ["wasm", "webgpu", "auto"]) {
  test(`states stay, go back to zero, and are read and replaced: ${device}`, async () => {
    const step = (n) => ({ step: { mix: frames[n] } });
    const wrong = { step: { mix: { data: frames[0].data, dims: [1, 257, 2, 1] } } };
    const options = { device, mayFail: true };
    const { results: r, about } = await perform(page, "page", {
      model: "/models/gtcrn.onnx",
      options,
      steps: [{ session: {} }, step(0), { state: "conv_cache" }, { state: "tra_cache" }, { state: "inter_cache" }, wrong,
        { step: { sound: frames[0] } }, step(1), { state: "none" }, { reset: true }, step(0)],
    });
    compare(r[1].enh, enhanced[0], BOUND);
    assert.match(r[5].error.message, /`mix`/);
    assert.match(r[6].error.message, /`sound`/);
    // The wrong calls left the states as they were.
    compare(r[7].enh, enhanced[1], BOUND);
    assert.match(r[8].error.message, /conv_cache, tra_cache, inter_cache/);
    compare(r[10].enh, enhanced[0], BOUND);
    // States that are read go on in another session, before whose first call they are put there.
    const set = ["conv_cache", "tra_cache", "inter_cache"].map((name, n) => ({ setState: [name, r[2 + n]] }));
    const other = await perform(page, "page", { model: "/models/gtcrn.onnx", options, steps: [{ session: {} }, ...set,
      { setState: ["tra_cache", { data: Float32Array.of(1, 2, 3), dims: [3] }] }, step(1)] });
    assert.match(other.results[4].error.message, /`tra_cache`.*\[3\]/);
    compare(other.results[5].enh, enhanced[1], BOUND);
    assert.throws(() => compare(r[1].enh, enhanced[1], BOUND), /element/);
    if (device === "auto") assert.ok(about.choice.ms.wasm > 0 && about.choice.ms.webgpu > 0, about.choice.reason);
  });
}

test("auto measures the first call on both devices, keeps the faster and says so", async () => {
  const { results, about } = await perform(page, "page", {
    model: "/models/gtcrn.onnx",
    options: { mayFail: true },
    steps: [{ session: {} }, { step: { noise: frames[0] } }, { step: { mix: frames[0] } }],
  });
  // A wrong call chooses nothing.
  assert.match(results[1].error.message, /`noise`/);
  compare(results[2].enh, enhanced[0], BOUND);
  const { device, ms, reason } = about.choice;
  assert.equal(device, ms.wasm <= ms.webgpu ? "wasm" : "webgpu");
  assert.equal(about.device, device);
  assert.match(reason, new RegExp(`^${device}, because a call took .* ms on wasm and .* ms on webgpu`));
  console.log(`auto: ${reason}`);
  const before = await page.evaluate(async () => {
    const model = await recurve.load("/models/gtcrn.onnx");
    const seen = [model.device, model.choice];
    await model.dispose();
    return seen;
  });
  assert.deepEqual(before, ["auto", null]);
});

test("auto keeps the faster device for products of matrices too", async () => {
  const size = 256;
  const model = onnx.model({
    nodes: [
      { op: "MatMul", inputs: ["x", "w"], outputs: ["a"] },
      { op: "MatMul", inputs: ["a", "w"], outputs: ["b"] },
      { op: "MatMul", inputs: ["b", "w"], outputs: ["y"] },
    ],
    weights: [onnx.tensor("w", [size, size], numbers(size * size).map((v) => v / 16))],
    inputs: [["x", 1, ["rows", size]]],
    outputs: [["y", 1, ["rows", size]]],
  });
  const x = { data: numbers(size * size, 3), dims: [size, size] };
  const run = (device) => perform(page, "page", { model, options: { device }, steps: [{ run: { x } }, { run: { x } }] });
  const [auto, wasm] = [await run("auto"), await run("wasm")];
  const { choice } = auto.about;
  console.log(`auto: ${choice.reason}`);
  assert.equal(choice.device, choice.ms.wasm <= choice.ms.webgpu ? "wasm" : "webgpu");
  for (const r of auto.results) compare(r.y, wasm.results[0].y, { abs: 1e-4 });
});

test("calls that overlap run one after the other", async () => {
  const got = await page.evaluate(async (frames) => {
    const model = await recurve.load("/models/gtcrn.onnx", { device: "wasm" });
    const session = await model.session();
    const mix = frames.map((f) => ({ mix: { data: Float32Array.from(f), dims: [1, 257, 1, 2] } }));
    const all = mix.map((inputs) => session.run(inputs));
    // What was given is copied at the call, and stays the caller's.
    for (const { mix: { data } } of mix) data.fill(NaN);
    const disposed = model.dispose();
    const late = await session.run(mix[0]).catch((e) => e.message);
    const outputs = (await Promise.all(all)).map((o) => [...o.enh.data]);
    await disposed;
    return { outputs, late, length: mix[0].mix.data.length };
  }, frames.map((f) => [...f.data]));
  got.outputs.forEach((y, n) => compare(y, enhanced[n], BOUND));
  assert.equal(got.late, "the model is disposed");
  assert.equal(got.length, 514);
});

test("a model that is disposed, and its sessions, refuse calls", async () => {
  const errors = await page.evaluate(async () => {
    const caught = (p) => p.then(() => "no error", (e) => [e.name, e.kind, e.message, e instanceof recurve.RecurveError]);
    const model = await recurve.load("/models/gtcrn.onnx", { device: "wasm" });
    const [one, other] = [await model.session(), await model.session()];
    await one.dispose();
    await one.dispose();
    const all = [await caught(one.states())];
    await other.states();
    await model.dispose();
    await model.dispose();
    for (const call of [() => model.run({}), () => model.session(), () => model.readText("x"), () => other.run({}),
      () => other.reset()]) all.push(await caught(call()));
    return { all, memory: await recurve.testing.ask("memory") };
  });
  assert.deepEqual(errors.all[0], ["RecurveError", "Disposed", "the session is disposed", true]);
  for (const e of errors.all.slice(1)) assert.deepEqual(e, ["RecurveError", "Disposed", "the model is disposed", true]);
  assert.deepEqual([errors.memory.models, errors.memory.sessions], [0, 0]);
});

test("a lost device rejects what ran on it; auto goes on with WebAssembly; a new model opens it again", async () => {
  const lost = await open(browser, server);
  const got = await lost.evaluate(async (frame) => {
    const caught = (p) => p.then((v) => v, (e) => ({ kind: e.kind, message: e.message }));
    const inputs = { mix: { data: Float32Array.from(frame), dims: [1, 257, 1, 2] } };
    const model = await recurve.load("/models/gtcrn.onnx", { device: "webgpu" });
    const session = await model.session();
    const first = [...(await session.run(inputs)).enh.data];
    const running = Array.from({ length: 5 }, () => caught(session.run(inputs)));
    const destroyed = await recurve.testing.ask("destroy");
    const during = await Promise.all(running);
    const after = [await caught(session.run(inputs)), await caught(model.session()), await caught(session.reset())];
    await model.dispose();
    const again = await recurve.load("/models/gtcrn.onnx", { device: "webgpu" });
    const second = [...(await (await again.session()).run(inputs)).enh.data];
    return { first, destroyed, during: during.filter((d) => d.kind), after, second };
  }, [...frames[0].data]);
  compare(got.first, enhanced[0], BOUND);
  compare(got.second, enhanced[0], BOUND);
  assert.equal(got.destroyed, 1);
  assert.ok(got.during.length > 0, "the device was lost while calls ran");
  for (const e of [...got.during, ...got.after]) {
    assert.equal(e.kind, "DeviceLost", e.message);
    assert.match(e.message, /the device was lost/);
  }
  assert.deepEqual(lost.problems, []);
  await lost.close();
});

test("auto goes on with WebAssembly when the GPU is lost", async () => {
  const lost = await open(browser, server);
  // A stand-in for a clock on which WebAssembly takes long, so that the GPU is chosen.
  const got = await lost.evaluate(async (frame) => {
    const caught = (p) => p.then((v) => v, (e) => ({ kind: e.kind, message: e.message }));
    const model = await recurve.load("/models/silero_vad.onnx", { worker: false });
    const inputs = { input: { data: Float32Array.from(frame), dims: [1, 512] }, sr: { data: [16000], dims: [] },
      state: { data: new Float32Array(256), dims: [2, 1, 128] } };
    const now = performance.now.bind(performance);
    let shift = 0;
    let gpu = false;
    const submit = GPUQueue.prototype.submit;
    GPUQueue.prototype.submit = function (...args) {
      gpu = true;
      return submit.apply(this, args);
    };
    performance.now = () => now() + (gpu ? shift : (shift += 1000));
    const first = await model.run(inputs);
    performance.now = now;
    GPUQueue.prototype.submit = submit;
    const before = { device: model.device, choice: model.choice };
    const session = await model.session();
    await recurve.testing.ask("destroy", false);
    const of = await caught(session.run({ input: inputs.input, sr: inputs.sr }));
    const second = await caught(model.run(inputs));
    const third = await caught(model.run(inputs));
    return { before, first: first.output.data[0], of, second: second.output?.data[0] ?? second,
      third: third.output?.data[0] ?? third, device: model.device, choice: model.choice };
  }, [...numbers(512)]);
  assert.equal(got.before.device, "webgpu", got.before.choice?.reason);
  assert.equal(got.of.kind, "DeviceLost", got.of.message);
  compare([got.second, got.third], [got.first, got.first], BOUND);
  assert.equal(got.device, "wasm");
  assert.match(got.choice.reason, /^wasm, because the GPU was lost: /);
  await lost.close();
});

test("a worker that ends rejects what waits, and the next model gets a new one", async () => {
  const dying = await open(browser, server);
  const got = await dying.evaluate(async () => {
    const caught = (p) => p.then((v) => v, (e) => ({ kind: e.kind, message: e.message }));
    const model = await recurve.load("/models/silero_vad.onnx", { device: "wasm" });
    const session = await model.session();
    const inputs = { input: { data: new Float32Array(576), dims: [1, 576] }, sr: { data: [16000], dims: [] } };
    const waiting = Array.from({ length: 3 }, () => caught(session.run(inputs)));
    const closed = caught(recurve.testing.ask("close"));
    const late = caught(session.run(inputs));
    const all = [...await Promise.all(waiting), await closed, await late, await caught(model.session())];
    await model.dispose();
    const again = await recurve.load("/models/silero_vad.onnx", { device: "wasm" });
    return { all: all.map((e) => e.kind ?? "done"), text: (await late).message,
      again: await (await again.session()).run(inputs).then((o) => Object.keys(o)) };
  });
  assert.deepEqual(got.all.slice(3), ["Worker", "Worker", "Worker"]);
  assert.match(got.text, /the worker has ended.*load them again/);
  assert.deepEqual(got.again, ["output"]);
  await dying.close();
});

test("a module that traps is given up, and no call waits for ever", async () => {
  // Glue whose calls trap at once, or later, when nobody can tell the promise.
  const glue = `
    const trapping = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0,
      7, 5, 1, 1, 116, 0, 0, 10, 5, 1, 3, 0, 0, 11]));
    const trap = new WebAssembly.Instance(trapping).exports.t;
    let panic;
    export const panic_message = () => panic;
    export const is_keras = () => false;
    export default async () => ({ memory: new WebAssembly.Memory({ initial: 1 }) });
    export class Device { static wasm() { return Object.assign(new Device(), { name: "test" }); } }
    export class Runner {
      static async open() { return new Runner(); }
      describe() { return { name: "test", summary: "", inputs: [], outputs: [], notes: [] }; }
      async run(inputs) {
        panic = inputs.panic && "a message";
        if (inputs.now) trap();
        if (inputs.later || inputs.panic) {
          queueMicrotask(() => trap());
          return new Promise(() => {});
        }
        return {};
      }
      free() {}
    }`;
  const context = await browser.newContext();
  await context.route("**/wasm/recurve_cpu_*.js*", (route) => route.fulfill({ contentType: "text/javascript", body: glue }));
  const here = await context.newPage();
  const problems = [];
  here.on("pageerror", (e) => problems.push(`${e}`));
  await here.goto(`${server.url}/tests/page/index.html`);
  await here.waitForFunction(() => globalThis.ready);
  const got = await here.evaluate(async () => {
    const all = [];
    const one = { data: [1] };
    for (const inputs of [{ now: one }, { later: one }, { panic: one }]) {
      const load = () => recurve.load(new Uint8Array(8), { device: "wasm", worker: false });
      const [model, other] = [await load(), await load()];
      const caught = (p) => Promise.race([p.then(() => "no error", (e) => [e.kind, e.message]),
        new Promise((done) => setTimeout(done, 3000, "open"))]);
      all.push([await caught(model.run(inputs)), await caught(model.run({})), await caught(other.run({}))]);
      await model.dispose();
      // A new model has a new module.
      all.at(-1).push(await (await load()).run({}));
    }
    return all;
  });
  for (const [n, [first, again, other, fresh]] of got.entries()) {
    assert.deepEqual([again, other, fresh], [first, first, {}]);
    assert.equal(first[0], n === 2 ? "Internal" : "OutOfMemory");
    assert.match(first[1], n === 2 ? /stopped \(a message\); .*load them again/ : /out of memory; .*load them again/);
  }
  assert.deepEqual(problems, []);
  await context.close();
});

test("two pages at once do not disturb each other", async () => {
  const pages = await Promise.all([open(browser, server), open(browser, server)]);
  const steps = [{ session: {} }, ...frames.slice(0, 6).map((mix) => ({ step: { mix } }))];
  const job = (device) => ({ model: "/models/gtcrn.onnx", options: { device }, steps });
  const all = await Promise.all([perform(pages[0], "page", job("webgpu")), perform(pages[1], "page", job("wasm")),
    perform(pages[1], "page", job("webgpu"))]);
  for (const { results } of all) results.slice(1).forEach((r, n) => compare(r.enh, enhanced[n], BOUND));
  // The device of one page is lost, and the other page goes on.
  await pages[0].evaluate(() => recurve.testing.ask("destroy"));
  const { results } = await perform(pages[1], "page", job("webgpu"));
  results.slice(1).forEach((r, n) => compare(r.enh, enhanced[n], BOUND));
  for (const p of pages) await p.close();
});

test("without WebGPU auto takes WebAssembly and says why", async () => {
  const plain = await launch({ webgpu: false, args: ["--host-resolver-rules=MAP plain.test 127.0.0.1"] });
  const elsewhere = await serve({ host: "plain.test" });
  // A browser that gives no adapter; a page that is not secure, where there is no `navigator.gpu`.
  for (const [at, words] of [[server, /gives no adapter/], [elsewhere, /neither over https nor from localhost/]]) {
    const here = await open(plain, at);
    const job = { model: "/models/gtcrn.onnx", steps: [{ session: {} }, { step: { mix: frames[0] } }] };
    for (const where of ["page", "main", "inner"]) {
      const { results, about } = await perform(here, where, job);
      compare(results[1].enh, enhanced[0], BOUND);
      assert.equal(about.device, "wasm");
      assert.match(about.choice.reason, words);
      await assert.rejects(perform(here, where, { ...job, options: { device: "webgpu" } }), (e) => {
        assert.equal(e.kind, "NoDevice");
        assert.match(e.message, words);
        return true;
      });
    }
    assert.deepEqual((await here.evaluate(() => recurve.devices())).map((d) => d.device), ["wasm"]);
    const { modules } = await here.evaluate(() => recurve.testing.ask("memory"));
    assert.deepEqual(modules.map((m) => m.file), ["recurve_cpu_relaxed"], "only the small module is loaded");
    assert.deepEqual(here.problems, []);
  }
  await plain.close();
  await elsewhere.close();
});

test("a Keras file brings the module that reads it", async () => {
  const here = await open(browser, server);
  const mixed = npz(file("tests/fixtures/keras_files.npz"))("file/mixed.keras").data;
  const files = async () => (await here.evaluate(() => recurve.testing.ask("memory"))).modules.map((m) => m.file).sort();
  await perform(here, "page", { model: "/models/gtcrn.onnx", options: { device: "wasm" }, steps: [] });
  assert.deepEqual(await files(), ["recurve_cpu_relaxed"]);
  for (let n = 0; n < 2; n++) {
    const { about } = await perform(here, "page", { model: mixed,
      options: { device: "wasm" }, steps: [] });
    assert.deepEqual(about.notes, ["layers of the type `mixed_float16` are computed in float32"]);
    assert.deepEqual(await files(), ["recurve_cpu_relaxed", "recurve_keras"]);
  }
  assert.deepEqual(here.problems, []);
  await here.close();
});

test("devices are listed", async () => {
  const all = await page.evaluate(() => recurve.devices());
  assert.deepEqual(all.map((d) => d.device), ["webgpu", "wasm"]);
  assert.ok(all.every((d) => d.name.length > 2), JSON.stringify(all));
});

test("files are found from another origin, with another type, and on an isolated page", async () => {
  const others = [await serve({ cors: true }), await serve({ wasmType: "application/octet-stream" }),
    await serve({ isolated: true })];
  const job = { model: "/models/gtcrn.onnx", options: { device: "wasm" }, steps: [{ session: {} }, { step: { mix: frames[0] } }] };
  for (const at of others.slice(1)) {
    const here = await open(browser, at);
    compare((await perform(here, "page", job)).results[1].enh, enhanced[0], BOUND);
    await here.close();
  }
  const here = await open(browser, server);
  const enh = await here.evaluate(async ([url, frame]) => {
    const other = await import(`${url}/dist/index.js`);
    const model = await other.load("/models/gtcrn.onnx", { device: "wasm" });
    const inputs = { mix: { data: frame, dims: [1, 257, 1, 2] } };
    return [...(await (await model.session()).run(inputs)).enh.data];
  }, [others[0].url, [...frames[0].data]]);
  compare(enh, enhanced[0], BOUND);
  await here.close();
  for (const at of others) await at.close();
});
