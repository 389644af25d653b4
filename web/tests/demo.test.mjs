// The demo page in a browser, with the real models. Screenshots are written to artifacts/.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, test as timed } from "node:test";
import { fileURLToPath } from "node:url";
import { npz } from "./lib/arrays.js";
import { launch } from "./lib/browser.js";
import { serve } from "./lib/server.js";

const root = new URL("../../", import.meta.url);
const artifacts = fileURLToPath(new URL("artifacts/", import.meta.url));
const noise = fileURLToPath(new URL("models/noisy_speech.wav", root));
/** Loading, compiling and measuring on a machine that does other things too. */
const PATIENCE = 120_000;

/** A page that computes without end must not hold up the tests: calls into it have no limit of their own. */
const test = (name, run) => timed(name, { timeout: 5 * PATIENCE }, run);

// The microphone plays the recording.
const args = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", `--use-file-for-fake-audio-capture=${noise}`];

let server, address, withGpu, without;

before(async () => {
  mkdirSync(artifacts, { recursive: true });
  server = await serve();
  address = `${server.url}/demo/`;
  withGpu = await launch({ args });
  without = await launch({ webgpu: false, args });
});

after(async () => {
  await Promise.all([withGpu?.close(), without?.close()]);
  await server?.close();
});

/** Opens the page, runs `use`, and checks that nothing went wrong unseen. */
async function onPage(browser, options, use) {
  const { hash = "", init, ...contextOptions } = options;
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 }, ...contextOptions });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const wrong = [];
  page.on("pageerror", (e) => wrong.push(`${e.stack ?? e}`));
  page.on("console", (m) => m.type() === "error" && wrong.push(m.text()));
  page.on("request", (r) => r.url().startsWith(server.url) || /^(data|blob):/.test(r.url()) || wrong.push(`request to ${r.url()}`));
  if (init) await page.addInitScript(init);
  try {
    await page.goto(address + hash);
    await use(page);
    assert.deepEqual(wrong, []);
  } finally {
    await context.close();
  }
}

const text = (page, selector) => page.locator(selector).textContent();

async function hasText(page, selector, pattern) {
  await page.waitForFunction(
    ([selector, source]) => new RegExp(source).test(document.querySelector(selector).textContent),
    [selector, pattern.source],
  );
}

/** Waits for what the tab says at the end, which is no error. */
async function done(page, tab) {
  await page.waitForFunction(
    (tab) => /^Done/.test(document.getElementById(`${tab}-status`).textContent) || !document.getElementById(`${tab}-error`).hidden,
    tab,
  );
  assert.equal(await text(page, `#${tab}-error`), "");
}

/** The samples of the .wav that is offered. */
async function offered(page) {
  const bytes = await page.evaluate(async () => {
    const { href } = document.getElementById("download");
    return [...new Uint8Array(await (await fetch(href)).arrayBuffer())];
  });
  return Float32Array.from(new Int16Array(Uint8Array.from(bytes.slice(44)).buffer), (s) => s / 32768);
}

test("the example is cleaned as ONNX Runtime cleans it, and its speech is found", async (t) => {
  await onPage(without, {}, async (page) => {
    await page.evaluate(() => {
      globalThis.longest = 0;
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) globalThis.longest = Math.max(globalThis.longest, entry.duration);
      }).observe({ type: "longtask" });
    });
    await page.click("#example");
    await done(page, "speech");
    t.diagnostic(`longest task of the page: ${(await page.evaluate(() => globalThis.longest)) || "under 50"} ms`);
    t.diagnostic(`speed: ${await text(page, "#fact-speed")}`);
    assert.equal(await text(page, "#speech-status"), "Done. Speech from 0.5 to 3.6 s, 3.8 to 5.0 s.");
    assert.equal(await text(page, "#fact-device"), "WebAssembly");
    assert.equal(await text(page, "#fact-sound"), "5.0 s");
    assert.equal(await page.getAttribute("#download", "download"), "noisy_speech_clean.wav");
    const got = await offered(page);
    const wave = npz(readFileSync(new URL("tests/fixtures/audio.npz", root)))("wave");
    assert.equal(got.length, wave.data.length);
    for (let n = 0; n < got.length; n++) {
      // Expected values have 11 bits; the browser's reader divides by 32767, and the file is rounded to 16 bits.
      const bound = Math.abs(wave.data[n]) * 2 ** -10 + 2 ** -14;
      assert.ok(Math.abs(got[n] - wave.data[n]) <= bound, `sample ${n}: ${got[n]}, but ${wave.data[n]} was expected`);
    }
  });
});

test("before and after are played from any moment, by keyboard", async () => {
  await onPage(without, {}, async (page) => {
    await page.setInputFiles("#file", noise);
    await done(page, "speech");
    await page.focus("#seek");
    for (let n = 0; n < 3; n++) await page.keyboard.press("PageUp");
    const moment = Number(await page.inputValue("#seek"));
    assert.ok(moment > 1 && moment < 4, `${moment}`);
    await page.click("#play");
    await hasText(page, "#play", /Pause/);
    await page.locator("label[for=heard-before]").click();
    assert.ok(await page.isChecked("#heard-before"));
    await page.waitForFunction((moment) => Number(document.getElementById("seek").value) > moment, moment);
    // To the end, where it stops by itself.
    await page.focus("#seek");
    await page.keyboard.press("End");
    await hasText(page, "#play", /Play/);
    await page.locator("#stage").click({ position: { x: 1, y: 20 } });
    await page.waitForFunction(() => Number(document.getElementById("seek").value) < 0.2);
  });
});

test("the microphone is cleaned while it is heard, and what it heard is kept", async () => {
  await onPage(without, { permissions: ["microphone"] }, async (page) => {
    await page.selectOption("#speech-device", "wasm");
    await page.click("#microphone");
    await hasText(page, "#speech-status", /^Listening/);
    assert.ok(await page.isDisabled("#example"));
    await page.check("#hear");
    await page.waitForFunction(() => parseFloat(document.getElementById("fact-sound").textContent) >= 3);
    await page.screenshot({ path: `${artifacts}speech_live.png`, fullPage: true });
    await page.click("#stop");
    await done(page, "speech");
    const got = await offered(page);
    assert.ok(got.length >= 3 * 16000, `${got.length} samples`);
    const loudest = got.reduce((most, s) => Math.max(most, Math.abs(s)), 0);
    assert.ok(loudest > 0.02, `${loudest}`);
    assert.ok(await page.isEnabled("#example"));
    // The next recording finds the models as they were.
    await page.click("#example");
    await done(page, "speech");
    assert.equal((await offered(page)).length, 80000);
  });
});

test("files that are no recordings and models that are missing are said in words", async () => {
  await onPage(without, {}, async (page) => {
    const give = async (name, bytes) => {
      await page.setInputFiles("#file", { name, mimeType: "audio/wav", buffer: Buffer.from(bytes) });
      await page.locator("#speech-error:not([hidden])").waitFor();
      return text(page, "#speech-error");
    };
    assert.match(await give("letter.wav", "Dear reader"), /letter\.wav is not a recording .* \.wav file was expected/);
    const short = readFileSync(noise).subarray(0, 144);
    assert.match(await give("short.wav", short), /short\.wav is shorter than one frame/);
  });
  await onPage(without, {}, async (page) => {
    const gone = (route) => route.fulfill({ status: 410, body: "" });
    await page.context().route("**/silero_vad.onnx", gone);
    await page.click("#example");
    await page.locator("#speech-error:not([hidden])").waitFor();
    assert.match(await text(page, "#speech-error"), /silero_vad\.onnx: the server answered 410/);
    await page.context().unroute("**/silero_vad.onnx", gone);
    await page.click("#example");
    await page.locator("#speech-error").waitFor({ state: "hidden" });
    await done(page, "speech");
  });
});

test("work that is stopped before it began leaves the page as it was", async () => {
  await onPage(without, { permissions: ["microphone"] }, async (page) => {
    await page.evaluate(() => {
      // In the moment in which the button appears.
      const stop = document.getElementById("stop");
      new MutationObserver(() => stop.hidden || stop.click()).observe(stop, { attributes: true });
    });
    for (const source of ["#example", "#microphone"]) {
      await page.click(source);
      await hasText(page, "#speech-status", /^Stopped before there was any sound/);
      await page.locator(`${source}:enabled`).waitFor();
      assert.equal(await text(page, "#speech-error"), "");
    }
  });
});

test("what a browser lacks is said where it matters", async () => {
  const init = () => {
    delete globalThis.AudioWorklet;
    Object.defineProperty(Navigator.prototype, "gpu", { get: () => undefined });
  };
  await onPage(without, { init }, async (page) => {
    await hasText(page, "#devices", /^WebAssembly\. This browser has no WebGPU/);
    assert.ok(await page.locator('#speech-device option[value="webgpu"]').evaluate((option) => option.disabled));
    assert.ok(await page.locator("#microphone").isHidden());
    assert.match(await text(page, "#microphone-lacks"), /no AudioWorklet/);
  });
  // A page that was not allowed the microphone.
  const refuse = () => {
    MediaDevices.prototype.getUserMedia = () => Promise.reject(new DOMException("", "NotAllowedError"));
  };
  await onPage(without, { init: refuse }, async (page) => {
    await page.click("#microphone");
    await page.locator("#speech-error:not([hidden])").waitFor();
    assert.match(await text(page, "#speech-error"), /did not allow the microphone/);
    assert.ok(await page.isEnabled("#microphone"));
  });
});

test("Chinese text is read as it is typed", async () => {
  await onPage(withGpu, { hash: "#reading" }, async (page) => {
    const rubies = () => page.locator("#reading ruby").evaluateAll((all) => all.map((r) => `${r.firstChild.data}${r.querySelector("rt").textContent}`));
    await hasText(page, "#reading-status", /^4 ambiguous characters read in/);
    // What the command prints for the sentence of the README.
    assert.deepEqual(await rubies(), ["了le", "了le", "大dà", "的de"]);
    for (const device of ["wasm", "webgpu"]) {
      await page.selectOption("#reading-device", device);
      await hasText(page, "#reading-status", device === "wasm" ? /on WebAssembly/ : /on WebGPU/);
      await page.fill("#text", "");
      await hasText(page, "#reading", /^$/);
      // The first character takes two units of JavaScript's text.
      await page.locator("#text").pressSequentially("😀他在银行工作，每天步行上班。", { delay: 10 });
      await hasText(page, "#reading", /班。$/);
      assert.deepEqual(await rubies(), ["行háng", "作zuò", "行xíng", "上shàng"]);
    }
    await page.locator("[data-example]").nth(1).click();
    await hasText(page, "#reading", /^我喜欢/);
    assert.deepEqual(await rubies(), ["乐yuè", "乐lè"]);
  });
});

test("layers are measured on every device", async () => {
  await onPage(withGpu, { hash: "#bench" }, async (page) => {
    await page.selectOption("[name=units]", "32");
    await page.selectOption("[name=cell]", "GRU");
    await page.click("#bench-start");
    await done(page, "bench");
    assert.deepEqual(await page.locator("#bench-head th").allTextContents(), ["Timesteps", "WebAssembly", "WebGPU"]);
    const cells = await page.locator("#bench-rows td").allTextContents();
    assert.equal(cells.length, 12);
    // A slow device stops early.
    const measured = cells.filter((cell) => cell !== "–");
    for (const cell of measured) assert.match(cell, /^[\d.,]+ ms$/);
    const marks = await Promise.all([".wasm circle", ".webgpu rect"].map((mark) => page.locator(`#chart ${mark}`).count()));
    assert.ok(marks[0] >= 1 && marks[1] >= 1 && marks[0] + marks[1] === measured.length, `${marks} of ${cells}`);
    await page.click("#bench-start");
    await page.click("#bench-stop");
    await hasText(page, "#bench-status", /^Stopped\.$/);
    assert.ok(await page.isEnabled("#bench-sizes"));
  });
});

test("the layers that are measured compute their equations", async () => {
  await onPage(without, { hash: "#bench" }, async (page) => {
    const sizes = { inputs: 3, units: 5, batch: 2 };
    const steps = 4;
    const x = Float32Array.from({ length: steps * 6 }, (_, n) => Math.sin(3 * n));
    for (const cell of ["LSTM", "GRU"]) {
      const { y, weights } = await page.evaluate(async ([cell, sizes, steps, x]) => {
        const { load } = await import("/dist/index.js");
        const { recurrentLayer } = await import("/demo/bench/onnx.js");
        const { bytes, weights } = recurrentLayer({ cell, ...sizes });
        const model = await load(bytes, { device: "wasm" });
        const { y } = await model.run({ x: { data: Float32Array.from(x), dims: [steps, sizes.batch, sizes.inputs] } });
        const lists = Object.entries(weights).map(([name, w]) => [name, [...w.data]]);
        return { y: { data: [...y.data], dims: y.dims }, weights: Object.fromEntries(lists) };
      }, [cell, sizes, steps, [...x]]);
      assert.deepEqual(y.dims, [steps, 1, 2, 5]);
      const wanted = recurrence(cell, sizes, steps, x, weights);
      wanted.forEach((w, n) => assert.ok(Math.abs(y.data[n] - w) < 1e-6, `${cell} ${n}: ${y.data[n]}, but ${w} was expected`));
    }
  });
});

/** ONNX's equations of a layer, one sequence after the other: gates i o f c, and z r h with the reset after the product. */
function recurrence(cell, { inputs, units, batch }, steps, x, { W, R, B }) {
  const sigmoid = (v) => 1 / (1 + Math.exp(-v));
  const all = new Float64Array(steps * batch * units);
  const gates = W.length / inputs / units;
  for (let b = 0; b < batch; b++) {
    let h = new Array(units).fill(0);
    const c = new Array(units).fill(0);
    for (let t = 0; t < steps; t++) {
      const row = x.subarray((t * batch + b) * inputs);
      const ofInput = (g, u) => B[g * units + u] + Array.from({ length: inputs }, (_, k) => W[(g * units + u) * inputs + k] * row[k]).reduce((a, v) => a + v);
      const ofState = (g, u) => B[(gates + g) * units + u] + h.reduce((a, v, k) => a + R[(g * units + u) * units + k] * v, 0);
      h = h.map((old, u) => {
        const sum = (g) => ofInput(g, u) + ofState(g, u);
        if (cell === "LSTM") {
          c[u] = sigmoid(sum(2)) * c[u] + sigmoid(sum(0)) * Math.tanh(sum(3));
          return sigmoid(sum(1)) * Math.tanh(c[u]);
        }
        const z = sigmoid(sum(0));
        return (1 - z) * Math.tanh(ofInput(2, u) + sigmoid(sum(1)) * ofState(2, u)) + z * old;
      });
      h.forEach((v, u) => (all[(t * batch + b) * units + u] = v));
    }
  }
  return all;
}

test("tabs are changed by keyboard", async () => {
  await onPage(without, {}, async (page) => {
    await page.focus("#tab-speech");
    for (const [key, tab] of [["ArrowRight", "reading"], ["End", "bench"], ["ArrowRight", "speech"], ["ArrowLeft", "bench"], ["Home", "speech"]]) {
      await page.keyboard.press(key);
      assert.equal(await page.evaluate(() => document.activeElement.id), `tab-${tab}`);
      assert.ok(await page.locator(`#panel-${tab}`).isVisible());
      assert.equal(await page.locator('[role="tabpanel"]:visible').count(), 1);
      assert.equal(new URL(page.url()).hash, `#${tab}`);
    }
  });
});

for (const [size, width, height] of [["phone", 360, 740], ["desktop", 1100, 900]]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`every tab fits a ${size} in ${colorScheme} colours`, async () => {
      const options = { viewport: { width, height }, colorScheme, deviceScaleFactor: size === "phone" ? 2 : 1 };
      await onPage(withGpu, options, async (page) => {
        const keep = async (name) => {
          const wide = await page.evaluate(() => document.documentElement.scrollWidth);
          assert.ok(wide <= width, `${name}: ${wide} pixels are needed, ${width} are there`);
          await page.evaluate(() => document.activeElement.blur());
          await page.mouse.move(0, 0);
          await page.screenshot({ path: `${artifacts}${name}_${size}_${colorScheme}.png`, fullPage: true });
        };
        await page.selectOption("#speech-device", "wasm");
        await keep("speech_empty");
        await page.click("#example");
        await done(page, "speech");
        await keep("speech");
        // Before the tab is opened, which reads the text at once.
        await page.locator("#reading-device").evaluate((select) => (select.value = "wasm"));
        await page.click("#tab-reading");
        await hasText(page, "#reading-status", /read in/);
        await keep("reading");
        await page.click("#tab-bench");
        await page.selectOption("[name=units]", "32");
        await page.click("#bench-start");
        await done(page, "bench");
        await keep("bench");
      });
    });
  }
}
