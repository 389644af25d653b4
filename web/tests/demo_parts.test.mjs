// The parts of the demo page that need no browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { recurrentLayer } from "../demo/bench/onnx.js";
import { pinyin } from "../demo/reading/pinyin.js";
import { RealFft } from "../demo/speech/fft.js";
import { BINS, Denoiser, FRAME, HOP, frameCount, levels, mirrored } from "../demo/speech/frames.js";
import { Resampler } from "../demo/speech/resample.js";
import { CHUNK, CHUNK_SECONDS, VoiceDetector, segments } from "../demo/speech/voice.js";
import { wav } from "../demo/speech/wav.js";
import { npz } from "./lib/arrays.js";

const root = new URL("../../", import.meta.url);

/** Numbers between -1 and 1 that are the same every time. */
function noise(count, seed = 7) {
  return Float32Array.from({ length: count }, () => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return seed / 2 ** 31 - 1;
  });
}

function near(got, wanted, tolerance, what) {
  assert.equal(got.length, wanted.length, what);
  let worst = 0;
  for (let n = 0; n < got.length; n++) {
    const off = Math.abs(got[n] - wanted[n]);
    assert.ok(off <= tolerance, `${what}[${n}]: ${got[n]}, but ${wanted[n]} was expected within ${tolerance}`);
    worst = Math.max(worst, off);
  }
  return worst;
}

const audio = npz(readFileSync(new URL("tests/fixtures/audio.npz", root)));

function recording() {
  const bytes = readFileSync(new URL("models/noisy_speech.wav", root));
  return Float32Array.from(new Int16Array(Uint8Array.from(bytes.subarray(44)).buffer), (s) => s / 32768);
}

test("a spectrum is the direct transform, and its inverse the samples", () => {
  for (const size of [4, 8, 64, 512]) {
    const fft = new RealFft(size);
    const x = noise(size);
    const spectrum = new Float64Array(size + 2);
    fft.forward(x, spectrum);
    for (let k = 0; k <= size / 2; k++) {
      let [re, im] = [0, 0];
      for (let n = 0; n < size; n++) {
        re += x[n] * Math.cos((2 * Math.PI * k * n) / size);
        im -= x[n] * Math.sin((2 * Math.PI * k * n) / size);
      }
      // Both sum up to 512 numbers in f64.
      near(spectrum.subarray(2 * k, 2 * k + 2), [re, im], 1e-11, `${size} samples, number ${k}`);
    }
    const back = new Float64Array(size);
    // A real signal has no imaginary part here.
    spectrum[1] = spectrum[size + 1] = 5;
    fft.inverse(spectrum, back);
    near(back, x, 1e-14, `${size} samples again`);
  }
  for (const size of [0, 2, 6, 1.5]) assert.throws(() => new RealFft(size), /size: a power of two/);
});

test("frames that no model changes add up to the recording", async () => {
  const x = noise(5003);
  const all = mirrored(x);
  const denoiser = new Denoiser(async (spectrum) => spectrum, all.subarray(0, HOP));
  const out = [];
  for (let n = 0; n < frameCount(x.length); n++) {
    out.push(...(await denoiser.push(all.subarray((n + 1) * HOP, (n + 2) * HOP))).samples);
  }
  out.push(...denoiser.rest());
  // The last frame has no other one over its second half.
  const whole = Math.floor(x.length / HOP) * HOP;
  near(out.slice(HOP, HOP + whole), x.subarray(0, whole), 1e-6, "sound");
  assert.ok(out.length >= HOP + x.length);
  assert.throws(() => mirrored(x.subarray(0, 256)), /256 samples .* at least 257/);
});

test("spectra and sound are those of tests/golden/make_audio.py", async () => {
  const [frames, enhanced, wave] = ["frames", "enhanced", "wave"].map(audio);
  const [count] = frames.dims;
  assert.deepEqual(frames.dims, [24, 1, BINS, 1, 2]);
  const part = (array, n) => array.data.subarray(n * 2 * BINS, (n + 1) * 2 * BINS);
  const all = mirrored(recording());
  let n = 0;
  // The model's answers are ONNX Runtime's.
  const denoiser = new Denoiser(async () => part(enhanced, n), all.subarray(0, HOP));
  const out = [];
  for (; n < count; n++) {
    const { before, samples } = await denoiser.push(all.subarray((n + 1) * HOP, (n + 2) * HOP));
    // NumPy's transform and ours are in f64; the window and the result are in f32, and no number is above 64.
    near(before, part(frames, n), 64 * 2 ** -22, `spectrum of frame ${n}`);
    out.push(...samples);
  }
  // The expected sound has 11 bits a sample, and is quiet where the recording begins.
  const wanted = wave.data.subarray(0, (count - 1) * HOP);
  const loudest = Math.max(...wanted);
  assert.ok(loudest > 1e-4, `${loudest}`);
  near(out.slice(HOP), wanted, loudest * 2 ** -10, "sound");
});

test("levels go from silence to loud", () => {
  const spectrum = new Float32Array(2 * BINS);
  spectrum[2] = 1e4;
  spectrum[5] = -1;
  const into = new Uint8Array(BINS + 1);
  levels(spectrum, into, 1);
  assert.deepEqual([...into.subarray(0, 5)], [0, 0, 255, 143, 0]);
});

test("the voice detector gives 64 samples of context and 512 new ones", async () => {
  const x = Float32Array.from({ length: 2 * CHUNK + 100 }, (_, n) => n + 1);
  const calls = [];
  const detector = new VoiceDetector(async (samples) => calls.push(samples) / 10);
  const got = [];
  for (let at = 0; at < x.length; at += 300) got.push(...(await detector.push(x.subarray(at, at + 300))));
  got.push(...(await detector.finish()), ...(await detector.finish()));
  assert.deepEqual(got, [0.1, 0.2, 0.3]);
  const at = (n) => (n < 0 || n >= x.length ? 0 : x[n]);
  calls.forEach((samples, n) => {
    assert.deepEqual([...samples], Array.from({ length: 576 }, (_, k) => at(n * CHUNK + k - 64)));
  });
});

test("segments begin and end where probabilities say", () => {
  const p = new Array(100).fill(0);
  p.fill(0.9, 10, 30);
  // A short silence, and one that is above the lower threshold.
  p[15] = 0.1;
  p.fill(0.4, 20, 28);
  p.fill(0.9, 50, 53);
  p.fill(0.7, 90);
  near(segments(p).flat(), [10 * CHUNK_SECONDS - 0.03, 30 * CHUNK_SECONDS + 0.03, 90 * CHUNK_SECONDS - 0.03, 100 * CHUNK_SECONDS], 1e-9, "segments");
  assert.deepEqual(segments([]), []);
  assert.deepEqual(segments(new Array(9).fill(0)), []);
  // What the command prints for the recording.
  near(segments(audio("probabilities").data).flat(), [0.546, 3.646, 3.778, 5.024], 1e-6, "speech of the recording");
});

test("a resampler keeps what both rates have, and nothing else", () => {
  for (const [from, to] of [[48000, 16000], [44100, 16000], [16000, 48000], [16000, 44100], [16000, 16000]]) {
    for (const [hertz, stays] of [[440, true], [6000, true], [12000, false]]) {
      if (hertz > from / 2) continue;
      const resampler = new Resampler(from, to);
      const sine = (rate) => (n) => Math.sin((2 * Math.PI * hertz * n) / rate);
      const out = [];
      // Parts of every size, as they come from a microphone.
      for (let at = 0, size = 1; at < from / 4; at += size, size = (size * 7) % 523) {
        out.push(...resampler.push(Float32Array.from({ length: size }, (_, n) => sine(from)(at + n))));
      }
      assert.ok(out.length > to / 4 - 200 && out.length < to / 4 + 400, `${out.length} samples`);
      const middle = out.slice(200, -200);
      const wanted = middle.map((_, n) => (stays || from < to ? sine(to)(n + 200) : 0));
      // A window of 24 lobes leaves a thousandth.
      near(middle, wanted, 2e-3, `${hertz} Hz from ${from} to ${to}`);
    }
  }
  assert.throws(() => new Resampler(44100.5, 16000), /from: a whole number/);
});

test("a .wav file has its header and its samples", async () => {
  const bytes = new DataView(await wav(Float32Array.of(0, 0.5, -1, 2, -2, 1e-5), 16000).arrayBuffer());
  const text = (at, length) => String.fromCharCode(...new Uint8Array(bytes.buffer, at, length));
  assert.deepEqual([text(0, 4), text(8, 8), text(36, 4)], ["RIFF", "WAVEfmt ", "data"]);
  assert.deepEqual([bytes.getUint32(4, true), bytes.byteLength], [48, 56]);
  assert.deepEqual([bytes.getUint16(22, true), bytes.getUint32(24, true), bytes.getUint16(34, true)], [1, 16000, 16]);
  const samples = Array.from({ length: 6 }, (_, n) => bytes.getInt16(44 + 2 * n, true));
  assert.deepEqual(samples, [0, 16384, -32768, 32767, -32768, 0]);
});

test("syllables have their tones as marks", () => {
  const pairs = "le5 le, da4 dà, lu:3 lǚ, nu:e4 nüè, hao3 hǎo, liu2 liú, gui4 guì, dou1 dōu, xiong2 xióng, er2 ér, zhuan4 zhuàn, ng2 ng2, A1 A1";
  for (const pair of pairs.split(", ")) {
    const [label, marked] = pair.split(" ");
    assert.equal(pinyin(label), marked);
  }
});

test("layers are written as ONNX files", () => {
  const { bytes, weights } = recurrentLayer({ cell: "GRU", inputs: 3, units: 5, batch: 2 });
  assert.deepEqual(weights.W.dims, [1, 15, 3]);
  assert.ok(weights.R.data.every((w) => Math.abs(w) <= 1 / Math.sqrt(5)) && new Set(weights.R.data).size > 70);
  const text = new TextDecoder("latin1").decode(bytes);
  for (const word of ["GRU", "linear_before_reset", "hidden_size"]) assert.ok(text.includes(word), word);
  const lstm = new TextDecoder("latin1").decode(recurrentLayer({ cell: "LSTM", inputs: 3, units: 5, batch: 2 }).bytes);
  assert.ok(!lstm.includes("linear_before_reset"));
  assert.throws(() => recurrentLayer({ cell: "RNN", inputs: 3, units: 5, batch: 2 }), /cell: LSTM or GRU/);
});
