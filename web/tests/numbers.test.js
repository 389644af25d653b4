// Numbers of real models and of files of others, as in the tests of Rust (`tests/tests`), whose bounds these are.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { cases, compare, npz, tensor } from "./lib/arrays.js";
import { parts, sileroCalls } from "./lib/audio.js";
import { file, perform, start, stop } from "./lib/browser.js";
import { repository } from "./lib/server.js";

const audio = npz(file("tests/fixtures/audio.npz"));

// Where a model runs, and how.
const WASM = [
  ["page", { device: "wasm" }],
  ["page", { device: "wasm", relaxedSimd: false }],
  ["inner", { device: "wasm" }],
  ["inner", { device: "wasm", relaxedSimd: false }],
  ["main", { device: "wasm" }],
];
const WEBGPU = [["page", { device: "webgpu" }], ["inner", { device: "webgpu" }]];

const called = (where, o) => `${o.device}${o.relaxedSimd === false ? " without relaxed SIMD" : ""}, ${
  { page: "worker of the package", inner: "in a worker of the page", main: "on the main thread" }[where]}`;

let server, browser, page;
before(async () => ({ server, browser, page } = await start()));
after(() => stop({ server, browser, page }));

/** The outputs of a session's steps, one after the other. */
function joined(results, output) {
  const steps = results.filter((r) => r[output]);
  for (const r of steps) assert.deepEqual(Object.keys(r), [output], "states do not come out");
  return steps.flatMap((r) => [...r[output].data]);
}

for (const [where, options] of [...WASM, ...WEBGPU]) {
  describe(called(where, options), () => {
    // On a GPU that a processor plays, a part of the recording.
    const gpu = options.device === "webgpu";
    const job = (model, steps) => perform(page, where, { model, options, steps });

    test("silero-vad finds speech as ONNX Runtime does", async () => {
      const want = audio("probabilities").data;
      const calls = sileroCalls().slice(0, gpu ? 40 : undefined);
      const { results, about } = await job("/models/silero_vad.onnx",
        [{ session: {} }, ...calls.map((step) => ({ step }))]);
      const worst = compare(joined(results, "output"), want.slice(0, calls.length), { abs: 1e-4 });
      console.log(`silero-vad, ${called(where, options)} (${about.deviceName}): worst error ${worst.toExponential(1)}`);
      assert.ok(want.some((p) => p > 0.9) && want.some((p) => p < 0.1), "both occur");
      assert.deepEqual(about.inputs.map((i) => i.name), ["input", "state", "sr"]);
      assert.equal(about.device, options.device);
    });

    test("GTCRN removes noise as ONNX Runtime does", async () => {
      const frames = parts(audio("frames"), [1, 257, 1, 2]).slice(0, gpu ? 8 : undefined);
      const want = audio("enhanced").data.slice(0, frames.length * 514);
      const steps = frames.map((mix) => ({ step: { mix } }));
      const { results } = await job("/models/gtcrn.onnx", [{ session: {} }, ...steps, { reset: true }, ...steps]);
      assert.deepEqual(results[0].states, ["conv_cache", "tra_cache", "inter_cache"]);
      // From zero states again, the same comes again.
      const worst = compare(joined(results, "enh"), [...want, ...want], { abs: 1e-4 });
      console.log(`GTCRN, ${called(where, options)}: worst error ${worst.toExponential(1)}`);
    });

    for (const [name, input, output, state, takes, gives] of [
      ["dtln_1", "input_2", "activation_2", ["input_3", "tf_op_layer_stack_2"], "dtln_magnitude", "dtln_mask"],
      ["dtln_2", "input_4", "conv1d_3", ["input_5", "tf_op_layer_stack_5"], "dtln_block", "dtln_filtered"],
    ]) {
      test(`${name} gives what ONNX Runtime gives`, async () => {
        const x = audio(takes);
        const steps = parts(x, [1, 1, x.dims[1]]).map((data) => ({ step: { [input]: data } }));
        const session = { session: { states: [state] } };
        const { results } = await job(`/models/${name}.onnx`, [session, ...steps]);
        const want = audio(gives).data;
        compare(joined(results, output), want, { abs: 1e-4 });
        // Without the states it would be noticed.
        const forgetful = await job(`/models/${name}.onnx`, [session, ...steps.flatMap((s) => [s, { reset: true }])]);
        assert.throws(() => compare(joined(forgetful.results, output), want, { abs: 1e-4 }), /element/);
      });
    }

    test("g2pM labels characters as its package does", async () => {
      const golden = npz(file("tests/fixtures/g2pm.npz"));
      const text = "然而，他红了20年以后，他竟退出了大家的视线。";
      const { results: [run, read, nothing] } = await job("/models/g2pm.safetensors",
        [{ run: { tokens: golden("ids"), lengths: golden("lengths") } }, { text }, { text: "" }]);
      const [logits, lengths] = [golden("logits"), golden("lengths").data];
      const got = Object.values(run)[0];
      assert.deepEqual(got.dims, [5, 25, 876]);
      lengths.forEach((length, row) => {
        const valid = [row * 25 * 876, (row * 25 + Number(length)) * 876];
        compare(got.data.slice(...valid), logits.data.slice(...valid), { abs: 1e-4, rel: 1e-5 });
      });
      const labels = read.readings.map((r) => [r.index, r.character, r.label]);
      assert.deepEqual(labels, [[5, "了", "le5"], [16, "了", "le5"], [17, "大", "da4"], [19, "的", "de5"]]);
      assert.deepEqual(nothing.readings, []);
    });
  });
}

/** The cases of a folder of ONNX's node tests. */
function folder(suite) {
  const at = join("tests/fixtures", suite);
  return readdirSync(join(repository, at)).filter((name) => !name.includes(".")).map((name) => {
    const data = readdirSync(join(repository, at, name, "test_data_set_0"));
    const read = (kind) => data.filter((f) => f.startsWith(kind)).sort((a, b) => parseInt(a.split("_")[1]) - parseInt(b.split("_")[1]))
      .map((f) => tensor(file(join(at, name, "test_data_set_0", f))));
    return { name, model: file(join(at, name, "model.onnx")), inputs: read("input"), outputs: read("output") };
  });
}

const gzip = (name) => cases(gunzipSync(file(`tests/fixtures/${name}.bin.gz`)));
const NODE = { abs: 1e-5, rel: 1e-4 };

const SUITES = [
  { name: "ONNX's node tests of recurrent layers", cases: () => folder("onnx_node"), count: 18, bound: () => NODE },
  { name: "random recurrent nodes", cases: () => folder("onnx_random"), count: 19, bound: () => NODE },
  {
    name: "exports by PyTorch",
    // A GRU without an attribute, and a projection, which ONNX's LSTM does not have.
    cases: () => gzip("onnx_pytorch").filter((c) => !["fault_gru", "lstm_projected_dynamo"].includes(c.name)),
    count: 20,
    bound: () => ({ abs: 3e-6 }),
  },
  { name: "cells written out operator by operator", cases: () => gzip("onnx_cells"), count: 73, bound: () => NODE },
  {
    name: "operators beside ONNX Runtime",
    cases: () => gzip("onnx_runtime"),
    count: 11,
    // ONNX Runtime rounds what it multiplies with quantized weights to 8 bits.
    bound: (name) => ({ abs: name.startsWith("quantized") ? 3e-2 : 0 }),
  },
];

for (const suite of SUITES) {
  for (const [where, options] of [WASM[0], WASM[1], WASM[2], WEBGPU[0]]) {
    test(`${suite.name}: ${called(where, options)}`, async () => {
      const all = suite.cases();
      assert.equal(all.length, suite.count);
      const wrong = [];
      // A GPU that a processor plays compiles the kernels of each file for long: some of many.
      const some = options.device === "webgpu" && all.length > 30 ? all.filter((_, n) => n % 5 === 0) : all;
      for (const { name, model, inputs, outputs } of some) {
        try {
          const { results: [got], about } = await perform(page, where, { model, options, steps: [{ run: inputs }] });
          // Names that are numbers come first in an object.
          assert.deepEqual(Object.keys(got).sort(), about.outputs.map((o) => o.name).sort());
          assert.equal(about.outputs.length, outputs.length);
          about.outputs.forEach((o, n) => compare(got[o.name], outputs[n], { special: true, ...suite.bound(name) }));
        } catch (e) {
          wrong.push(`${name}: ${e.message}`);
        }
      }
      assert.deepEqual(wrong, []);
    });
  }
}

const keras = npz(file("tests/fixtures/keras_files.npz"));
const index = JSON.parse(Buffer.from(keras("index").data).toString());

for (const [where, options] of [WASM[0], WASM[1], WASM[2], WEBGPU[0], ["page", { device: "auto" }]]) {
  test(`Keras's files: ${called(where, options)}`, async () => {
    const wrong = [];
    let count = 0;
    for (const [name, about] of Object.entries(index.cases)) {
      for (const end of ["keras", "h5"]) {
        const path = `${name}.${end}`;
        // The weights of `cudnn_apart` are apart from the description.
        if (!index.files.includes(path) || name === "cudnn_apart") continue;
        count += 1;
        const inputs = Object.fromEntries(about.inputs.map((i) => [i, keras(`${name}/in/${i}`)]));
        // The second call of a stateful model goes on where the first ended.
        const steps = name === "stateful" ? [{ run: inputs }, { run: inputs }] : [{ run: inputs }];
        try {
          const { results } = await perform(page, where, { model: keras(`file/${path}`).data, options, steps });
          const got = results.flatMap((r) => Object.values(r));
          assert.equal(got.length, about.outputs);
          got.forEach((y, n) => compare(y, keras(`${name}/out/${n}`), { abs: 2e-5 }));
        } catch (e) {
          wrong.push(`${path}: ${e.message}`);
        }
      }
    }
    assert.equal(count, 26);
    assert.deepEqual(wrong, []);
  });
}
