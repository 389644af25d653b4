// What is wrong is rejected with a text that names it, and the page goes on.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import * as onnx from "../demo/bench/onnx.js";
import { file, open, perform, start, stop } from "./lib/browser.js";

let server, browser, page;
before(async () => ({ server, browser, page } = await start()));
after(() => stop({ server, browser, page }));

/** The error of a function in the page. */
function refused(f, argument) {
  return page.evaluate(async ([body, argument]) => {
    try {
      const value = await eval(`(${body})`)(argument);
      return { none: `no error, but ${typeof value}` };
    } catch (e) {
      return { kind: e.kind, name: e.name, message: e.message, own: e instanceof recurve.RecurveError };
    }
  }, [f.toString(), argument]);
}

function is(e, kind, words) {
  assert.ok(e.own && e.name === "RecurveError", JSON.stringify(e));
  assert.equal(e.kind, kind, e.message);
  for (const w of [words].flat()) assert.ok(e.message.includes(w), `${e.message}: ${w}`);
}

for (const device of ["wasm", "webgpu", "auto"]) {
  test(`inputs: ${device}`, async () => {
    await page.evaluate(async (device) => {
      globalThis.model = await recurve.load("/models/silero_vad.onnx", { device });
      globalThis.good = () => ({
        input: { data: new Float32Array(576), dims: [1, 576] },
        state: { data: new Float32Array(256), dims: [2, 1, 128] },
        sr: { data: [16000], dims: [] },
      });
    }, device);
    for (const [f, words] of [
      [() => model.run(), ["inputs by name", "undefined"]],
      [() => model.run(null), ["inputs by name", "null"]],
      [() => model.run([1]), ["inputs by name", "an array"]],
      [() => model.run("x"), ["inputs by name", '"x"']],
      [() => model.run({}), ["`input`"]],
      [() => model.run({ ...good(), sound: { data: [1] } }), ["`sound`", "`input`, `state`, `sr`"]],
      [() => model.run({ ...good(), input: 5 }), ["`input`", "{ data, dims }", "5"]],
      [() => model.run({ ...good(), input: null }), ["`input`", "null"]],
      [() => model.run({ ...good(), input: new Float32Array(576) }), ["`input`", "`data`", "undefined"]],
      [() => model.run({ ...good(), input: { data: "noise" } }), ["`input`", "typed array", '"noise"']],
      [() => model.run({ ...good(), input: { data: () => 1 } }), ["`input`", "function"]],
      [() => model.run({ ...good(), input: { data: ["a"] } }), ["`input`", "element 0", '"a"']],
      [() => model.run({ ...good(), input: { data: [[1, 2], [3, 4]] } }), ["`input`", "element 0", "an array"]],
      [() => model.run({ ...good(), input: { data: new ArrayBuffer(8) } }), ["`input`", "ArrayBuffer"]],
      [() => model.run({ ...good(), input: { data: new Float32Array(576), dims: [1, 575] } }),
        ["`input`", "[1, 575]", "575 elements", "576"]],
      [() => model.run({ ...good(), input: { data: new Float32Array(576), dims: 576 } }), ["`input`", "`dims`", "576"]],
      [() => model.run({ ...good(), input: { data: new Float32Array(576), dims: [1, 576.5] } }), ["`input`", "576.5"]],
      [() => model.run({ ...good(), input: { data: new Float32Array(576), dims: [-1, -576] } }), ["`input`", "-1"]],
      [() => model.run({ ...good(), input: { data: new Float32Array(576), dims: ["1", 576] } }), ["`input`", '"1"']],
      [() => model.run({ ...good(), input: { data: [], dims: [0, 576] } }), ["`input`"]],
      [() => model.run({ ...good(), input: { data: new Float32Array(576) } }), ["`input`", "[576]"]],
      [() => model.run({ ...good(), state: { data: new Float32Array(128), dims: [1, 1, 128] } }), ["`state`"]],
      [() => model.run({ ...good(), sr: { data: [16000.5], dims: [] } }), ["`sr`", "whole numbers", "16000.5"]],
      [() => model.run({ ...good(), sr: { data: Float32Array.of(16000), dims: [] } }), ["`sr`", "floats"]],
      [() => model.readText("大"), ["vocabulary"]],
      [() => model.readText(5), ["text", "5"]],
    ]) is(await refused(f), "Input", words);
    for (const [f, words] of [
      [() => model.session({ size: 1 }), ["`size`", "batch, states"]],
      [() => model.session({ batch: 0 }), ["`batch`", "0"]],
      [() => model.session({ batch: "2" }), ["`batch`", '"2"']],
      [() => model.session({ states: ["state"] }), ["`states`", "pairs of names", '"state"']],
      [() => model.session(5), ["options", "5"]],
    ]) is(await refused(f), "Argument", words);
    is(await refused(() => model.session({ states: [["none", "stateN"]] })), "Input", "`none`");
    // The model works as if nothing had been.
    const got = await page.evaluate(async () => {
      const outputs = await model.run(good());
      await model.dispose();
      return Object.keys(outputs);
    });
    assert.deepEqual(got, ["output", "stateN"]);
  });
}

test("arguments of load", async () => {
  for (const [f, words] of [
    [() => recurve.load(), ["`source`", "undefined"]],
    [() => recurve.load(5), ["`source`", "5"]],
    [() => recurve.load({}), ["`source`", "class Object"]],
    [() => recurve.load("http://"), ["`source`", "http://"]],
    [() => recurve.load("/models/gtcrn.onnx", { device: "gpu" }), ["`device`", '"gpu"', '"webgpu"']],
    [() => recurve.load("/models/gtcrn.onnx", { devise: "wasm" }), ["`devise`", "device"]],
    [() => recurve.load("/models/gtcrn.onnx", "wasm"), ["options", '"wasm"']],
    [() => recurve.load("/models/gtcrn.onnx", { worker: 1 }), ["`worker`", "1"]],
    [() => recurve.load("/models/gtcrn.onnx", { relaxedSimd: "no" }), ["`relaxedSimd`", '"no"']],
    [() => recurve.load("/models/gtcrn.onnx", { onProgress: 5 }), ["`onProgress`", "5"]],
    [() => recurve.load("/models/gtcrn.onnx", { signal: 5 }), ["`signal`", "5"]],
  ]) is(await refused(f), "Argument", words);
});

test("files that cannot be fetched", async () => {
  is(await refused(() => recurve.load("/answer/404")), "Fetch", ["/answer/404: the server answered 404 Not Found"]);
  is(await refused(() => recurve.load("/answer/503")), "Fetch", ["503"]);
  is(await refused(() => recurve.load("http://localhost:9/x.onnx")), "Fetch", ["http://localhost:9/x.onnx", "cannot be"]);
  is(await refused(() => recurve.load("/answer/broken")), "Fetch", ["/answer/broken", "broke off"]);
  is(await refused(async () => recurve.load(await fetch("/answer/404"))), "Fetch", ["404"]);
  is(await refused(async () => {
    const response = await fetch("/models/gtcrn.onnx");
    await response.arrayBuffer();
    return recurve.load(response);
  }), "Fetch", ["read already"]);
});

test("an abort rejects with its reason, before and while a file is fetched", async () => {
  const got = await page.evaluate(async () => {
    const stop = new AbortController();
    const slow = recurve.load("/answer/slow", { signal: stop.signal, onProgress: ({ loaded }) => loaded && stop.abort() });
    const first = await slow.catch((e) => e.name);
    const own = await recurve.load("/models/gtcrn.onnx", { signal: AbortSignal.abort("enough") }).catch((e) => e);
    return [first, own];
  });
  assert.deepEqual(got, ["AbortError", "enough"]);
});

test("the progress is told, and sources of every kind give the same model", async () => {
  const got = await page.evaluate(async () => {
    const told = [];
    const models = [await recurve.load("/models/gtcrn.onnx", { device: "wasm", onProgress: (p) => told.push(p) })];
    const response = await fetch("/models/gtcrn.onnx");
    const blob = await response.clone().blob();
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const wider = new Uint8Array(bytes.length + 20);
    wider.set(bytes, 10);
    for (const source of [response, blob, new File([blob], "a.onnx"), bytes, bytes.buffer, wider.subarray(10, -10),
      new URL("/models/gtcrn.onnx", location.href)]) models.push(await recurve.load(source, { device: "wasm" }));
    const inputs = models.map((m) => JSON.stringify(m.inputs));
    for (const m of models) await m.dispose();
    return { told, size: bytes.length, inputs: new Set(inputs).size, count: models.length, names: models.map((m) => m.name) };
  });
  assert.equal(got.size, file("models/gtcrn.onnx").length, "the caller's bytes are there still");
  assert.deepEqual(got.told[0], { loaded: 0, total: got.size });
  assert.deepEqual(got.told.at(-1), { loaded: got.size, total: got.size });
  assert.ok(got.told.every((p, n) => n === 0 || p.loaded > got.told[n - 1].loaded));
  assert.deepEqual([got.inputs, got.count], [1, 8]);
});

test("files that are no models", async () => {
  const load = (bytes) => refused(async (base64) => {
    await recurve.load(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)), { device: "wasm" });
  }, Buffer.from(bytes).toString("base64"));
  const whole = { onnx: file("models/gtcrn.onnx"), keras: file("tests/fixtures/mixed_before.keras"),
    safetensors: file("models/stars.safetensors") };
  for (const [name, bytes] of Object.entries(whole)) {
    for (const part of [1, 8, bytes.length >> 1, bytes.length - 1]) {
      const e = await load(bytes.subarray(0, part));
      assert.ok(e.own && e.kind !== "Internal" && e.message.length > 10, `${part} bytes of ${name}: ${JSON.stringify(e)}`);
    }
  }
  for (const bytes of [Buffer.alloc(0), Buffer.from("<!doctype html><title>not a model</title>"), Buffer.alloc(5000, 255),
    file("models/noisy_speech.wav")]) {
    const e = await load(bytes);
    assert.ok(e.own && e.kind !== "Internal", JSON.stringify(e));
  }
  // An operator that Recurve has not is named.
  const unknown = onnx.model({ nodes: [{ op: "Frobnicate", inputs: ["x"], outputs: ["y"] }], inputs: [["x", 1, [1]]],
    outputs: [["y", 1, [1]]] });
  is(await load(unknown), "OnnxFile", "Frobnicate");
});

test("memory that is not there", async () => {
  // All outputs have the shape that x holds. Six of 1 GB are more than a module can have.
  const value = (name) => [name, 1, ["a", "b"]];
  const model = onnx.model({
    nodes: [
      { op: "ConstantOfShape", inputs: ["x"], outputs: ["y"] },
      { op: "Cos", inputs: ["y"], outputs: ["z"] },
      { op: "Sin", inputs: ["z"], outputs: ["u"] },
      { op: "Tan", inputs: ["u"], outputs: ["v"] },
      { op: "Atan", inputs: ["v"], outputs: ["w"] },
      { op: "Cos", inputs: ["w"], outputs: ["a"] },
    ],
    inputs: [["x", 7, [2]]],
    outputs: ["y", "z", "u", "v", "w", "a"].map(value),
  });
  const shape = (...dims) => ({ run: { x: { data: BigInt64Array.from(dims.map(BigInt)), dims: [2] } } });
  for (const where of ["page", "inner"]) {
    const job = { model, options: { device: "wasm", mayFail: true },
      steps: [shape(2, 3), shape(40_000, 25_000), shape(16_000, 16_000), shape(2, 3)] };
    const { results } = await perform(page, where, job);
    assert.deepEqual(results[0].y.dims, [2, 3]);
    assert.equal(results[1].error.kind, "Input", results[1].error.message);
    assert.match(results[1].error.message, /40000, 25000/);
    assert.equal(results[2].error.kind, "OutOfMemory", results[2].error.message);
    console.log(`${where}: ${results[2].error.message}`);
    // If the module was given up, the model says so; another is loaded into a new one.
    if (results[3].error) assert.match(results[3].error.message, /load them again/);
    const again = await perform(page, where, { ...job, steps: [shape(2, 3)] });
    assert.deepEqual(again.results[0].y.dims, [2, 3]);
  }
});

test("a worker that cannot be started", async () => {
  const here = await open(browser, server);
  await here.route("**/dist/worker.js", (route) => route.fulfill({ status: 404, body: "" }));
  await here.context().route("**/dist/worker.js", (route) => route.fulfill({ status: 404, body: "" }));
  const e = await here.evaluate(() => Promise.race([
    recurve.load("/models/gtcrn.onnx").catch((e) => ({ kind: e.kind, message: e.message })),
    new Promise((done) => setTimeout(done, 10_000, { message: "open after 10 s" })),
  ]));
  assert.equal(e.kind, "Worker", e.message);
  assert.match(e.message, /worker\.js: the worker cannot be started/);
  await here.close();
});

test("files of the package that are not there", async () => {
  const context = await browser.newContext();
  await context.route("**/*_bg.wasm", (route) => route.fulfill({ status: 404, body: "" }));
  const here = await context.newPage();
  await here.goto(`${server.url}/tests/page/index.html`);
  await here.waitForFunction(() => globalThis.ready);
  const load = (path = "models/gtcrn.onnx") => here.evaluate((base64) =>
    recurve.load(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)), { device: "wasm", worker: false })
      .then((m) => ({ summary: m.summary() }), (e) => ({ kind: e.kind, message: e.message })), file(path).toString("base64"));
  const e = await load();
  assert.equal(e.kind, "Fetch", e.message);
  assert.match(e.message, /_bg\.wasm: the server answered 404/);
  // When they are there again, the next model is loaded.
  await context.unrouteAll();
  assert.ok((await load()).summary);
  await context.route("**/recurve_keras.js*", (route) => route.fulfill({ status: 404, body: "" }));
  const keras = () => load("tests/fixtures/mixed_before.keras");
  const missing = await keras();
  assert.equal(missing.kind, "Fetch", missing.message);
  assert.match(missing.message, /recurve_keras\.js.*cannot be imported/);
  await context.unrouteAll();
  assert.ok((await keras()).summary);
  await context.close();
});
