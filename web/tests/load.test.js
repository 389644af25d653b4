// Time and memory: streams of audio, a thousand calls, and a main thread that is never held up.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { compare, npz } from "./lib/arrays.js";
import { recording } from "./lib/audio.js";
import { file, start, stop } from "./lib/browser.js";

let server, browser, page;
before(async () => ({ server, browser, page } = await start({ isolated: true })));
after(() => stop({ server, browser, page }));

// 10 s at 16 kHz: silero-vad takes 512 new samples a call, GTCRN 256.
const SECONDS = 10;

for (const relaxedSimd of [true, false]) {
  const on = relaxedSimd ? "wasm" : "wasm without relaxed SIMD";

  test(`silero-vad hears ${SECONDS} s of audio faster than they last: ${on}`, async () => {
    const { ms, probabilities } = await page.evaluate(async ([samples, relaxedSimd, seconds]) => {
      const model = await recurve.load("/models/silero_vad.onnx", { device: "wasm", relaxedSimd });
      const session = await model.session();
      const all = new Float32Array(64 + seconds * 16_000);
      for (let n = 0; n < all.length - 64; n++) all[64 + n] = samples[n % samples.length];
      const probabilities = [];
      const start = performance.now();
      for (let at = 0; at + 576 <= all.length; at += 512) {
        const { output } = await session.run({
          input: { data: all.subarray(at, at + 576), dims: [1, 576] }, sr: { data: [16000], dims: [] },
        });
        probabilities.push(output.data[0]);
      }
      const ms = performance.now() - start;
      await model.dispose();
      return { ms, probabilities };
    }, [[...recording()], relaxedSimd, SECONDS]);
    console.log(`silero-vad, ${on}: ${SECONDS} s of audio in ${ms.toFixed(0)} ms, ${(ms / probabilities.length).toFixed(2)} ms a call`);
    const want = npz(file("tests/fixtures/audio.npz"))("probabilities").data.slice(0, 150);
    compare(probabilities.slice(0, 150), want, { abs: 1e-4 });
    assert.ok(ms < SECONDS * 1000, `${ms} ms`);
  });

  test(`GTCRN cleans ${SECONDS} s of audio faster than they last: ${on}`, async () => {
    const { ms, calls, finite } = await page.evaluate(async ([frame, relaxedSimd, seconds]) => {
      const model = await recurve.load("/models/gtcrn.onnx", { device: "wasm", relaxedSimd });
      const session = await model.session();
      const data = Float32Array.from(frame);
      const calls = seconds * 16_000 / 256;
      let finite = true;
      const start = performance.now();
      for (let n = 0; n < calls; n++) {
        const { enh } = await session.run({ mix: { data, dims: [1, 257, 1, 2] } });
        finite &&= enh.data.every(Number.isFinite);
      }
      const ms = performance.now() - start;
      await model.dispose();
      return { ms, calls, finite };
    }, [[...npz(file("tests/fixtures/audio.npz"))("frames").data.slice(0, 514)], relaxedSimd, SECONDS]);
    console.log(`GTCRN, ${on}: ${SECONDS} s of audio in ${ms.toFixed(0)} ms, ${(ms / calls).toFixed(2)} ms a call`);
    assert.ok(finite);
    assert.ok(ms < SECONDS * 1000, `${ms} ms`);
  });
}

for (const device of ["wasm", "webgpu"]) {
  test(`a thousand calls take no more memory: ${device}`, { timeout: 280_000 }, async () => {
    const got = await page.evaluate(async (device) => {
      const model = await recurve.load("/models/silero_vad.onnx", { device });
      const session = await model.session();
      const inputs = { input: { data: new Float32Array(576), dims: [1, 576] }, sr: { data: [16000], dims: [] } };
      const size = async () => {
        // Waits for a collection of garbage, in the worker too.
        const { bytes } = await performance.measureUserAgentSpecificMemory();
        const { modules } = await recurve.testing.ask("memory");
        return { bytes, wasm: modules.reduce((n, m) => n + m.bytes, 0) };
      };
      const calls = async (count) => {
        for (let n = 0; n < count; n++) await session.run(inputs);
      };
      await calls(50);
      const before = await size();
      await calls(1000);
      const after = await size();
      await model.dispose();
      return { before, after };
    }, device);
    const mib = ({ bytes, wasm }) => `${(bytes / 2 ** 20).toFixed(2)} MiB of the page, ${(wasm / 2 ** 20).toFixed(2)} MiB of wasm`;
    console.log(`${device}: ${mib(got.before)} before, ${mib(got.after)} after 1,000 calls`);
    assert.equal(got.after.wasm, got.before.wasm);
    // 1,000 calls that kept one array of 576 floats each would keep 2.2 MiB.
    assert.ok(got.after.bytes - got.before.bytes < 1.5 * 2 ** 20, JSON.stringify(got));
  });
}

test("models that are loaded and disposed of leave nothing", async () => {
  const got = await page.evaluate(async () => {
    const bytes = await (await fetch("/models/silero_vad.onnx")).arrayBuffer();
    const rounds = async (count) => {
      for (let n = 0; n < count; n++) {
        const model = await recurve.load(bytes, { device: "wasm" });
        const session = await model.session();
        await session.run({ input: { data: new Float32Array(576), dims: [1, 576] }, sr: { data: [16000], dims: [] } });
        await model.dispose();
      }
    };
    const size = async () => (await recurve.testing.ask("memory")).modules.reduce((n, m) => n + m.bytes, 0);
    await rounds(5);
    const before = await size();
    await rounds(30);
    return { before, after: await size(), ...(await recurve.testing.ask("memory")) };
  });
  console.log(`30 models one after the other: ${got.before} bytes of wasm before, ${got.after} after`);
  assert.equal(got.after, got.before);
  assert.deepEqual([got.models, got.sessions], [0, 0]);
});

for (const device of ["wasm", "webgpu"]) {
  test(`the main thread has no long task while models load and run: ${device}`, { timeout: 120_000 }, async () => {
    const got = await page.evaluate(async (device) => {
      const long = [];
      const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((e) => e.duration)));
      observer.observe({ type: "longtask" });
      let [last, gap, ticks] = [performance.now(), 0, 0];
      const timer = setInterval(() => {
        const now = performance.now();
        [gap, last, ticks] = [Math.max(gap, now - last), now, ticks + 1];
      }, 4);
      const model = await recurve.load("/models/gtcrn.onnx", { device });
      const session = await model.session();
      const inputs = { mix: { data: new Float32Array(514), dims: [1, 257, 1, 2] } };
      const until = performance.now() + 3000;
      let calls = 0;
      while (performance.now() < until) {
        await session.run(inputs);
        calls += 1;
      }
      // A task that is long by intent is seen, so that none seen means none.
      const seen = [...long, ...observer.takeRecords().map((e) => e.duration)];
      clearInterval(timer);
      const busy = performance.now() + 80;
      await new Promise((done) => setTimeout(() => {
        while (performance.now() < busy + 80);
        done();
      }));
      await new Promise((done) => setTimeout(done, 100));
      const control = [...long, ...observer.takeRecords()].length > seen.length;
      observer.disconnect();
      await model.dispose();
      return { seen, gap, ticks, calls, control };
    }, device);
    console.log(`${device}: ${got.calls} calls; long tasks ${JSON.stringify(got.seen)}; the longest gap of a timer of 4 ms ` +
      `was ${got.gap.toFixed(1)} ms (${got.ticks} ticks)`);
    assert.ok(got.control, "a long task is seen");
    assert.deepEqual(got.seen, []);
  });
}
