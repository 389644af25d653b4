// The models of the speech tab. Recordings come from the page, live sound comes from the audio thread through a port.
//
// From the page: { type: "recording", id, channels, device }, { type: "live", id, port, rate, device }, { type: "stop" }.
// To the page, all with the id of the job: loading (loaded, total), begin (devices), frames (before, after,
// probabilities, busy, skipped), end (sounds, file), error (kind, message).
import { load } from "../../dist/index.js";
import { BINS, Denoiser, HOP, RATE, frameCount, levels, mirrored } from "./frames.js";
import { Resampler } from "./resample.js";
import { VoiceDetector } from "./voice.js";
import { wav } from "./wav.js";

const FILES = { denoiser: "../models/gtcrn.onnx", voice: "../models/silero_vad.onnx" };
/** Milliseconds between messages to the page. */
const BETWEEN = 30;
/** Seconds of live sound that may wait for the models; beyond that the oldest is skipped. */
const MAX_WAITING = 1;

/** The models, and the device that was asked for. */
let opened = null;
/** The job that runs; another one takes its place. */
let current = 0;

const mix = (data) => ({ mix: { data, dims: [1, BINS, 1, 2] } });
const sound = (data) => ({ input: { data, dims: [1, data.length] }, sr: { data: [16000], dims: [] } });

/** A turn of the event loop, in which messages arrive. */
const turn = () =>
  new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });

async function open(id, device) {
  if (opened?.device === device) return opened.models;
  await close();
  const progress = {};
  const fetching = Object.entries(FILES).map(async ([role, file]) => {
    const onProgress = (p) => {
      progress[role] = p;
      const all = Object.values(progress);
      const total = all.every((p) => p.total > 0) ? all.reduce((sum, p) => sum + p.total, 0) : 0;
      postMessage({ type: "loading", id, loaded: all.reduce((sum, p) => sum + p.loaded, 0), total });
    };
    return [role, await load(new URL(file, import.meta.url), { device, onProgress })];
  });
  const results = await Promise.allSettled(fetching);
  const failed = results.find((r) => r.status === "rejected");
  if (failed) {
    await Promise.allSettled(results.map((r) => r.value?.[1].dispose()));
    throw failed.reason;
  }
  const models = Object.fromEntries(results.map((r) => r.value));
  opened = { device, models };
  // The first calls compile kernels, and choose a device where that is left open.
  const first = { denoiser: mix(new Float32Array(2 * BINS)), voice: sound(new Float32Array(576)) };
  for (const [role, model] of Object.entries(models)) {
    const session = await model.session();
    await session.run(first[role]);
    await session.dispose();
  }
  return models;
}

async function close() {
  const models = Object.values(opened?.models ?? {});
  opened = null;
  // A model whose device was lost may not be freed, and is gone all the same.
  await Promise.allSettled(models.map((m) => m.dispose()));
}

/** Both models with states of their own. */
async function begin(models, first) {
  const [denoiser, voice] = await Promise.all([models.denoiser.session(), models.voice.session()]);
  return {
    denoiser: new Denoiser(async (spectrum) => (await denoiser.run(mix(spectrum))).enh.data, first),
    voice: new VoiceDetector(async (samples) => (await voice.run(sound(samples))).output.data[0]),
    end: () => Promise.allSettled([denoiser.dispose(), voice.dispose()]),
  };
}

/** What goes to the page, a few frames at a time. */
class Report {
  #id;
  #frames = [];
  #heard = [];
  #cleaned = [];
  #probabilities = [];
  #sent = performance.now();
  /** Milliseconds in which the models worked, and samples that they never saw. */
  busy = 0;
  skipped = 0;

  constructor(id) {
    this.#id = id;
  }

  add(frame, heard, probabilities) {
    this.#frames.push(frame);
    this.#heard.push(heard);
    this.#cleaned.push(frame.samples);
    this.#probabilities.push(...probabilities);
  }

  get isDue() {
    return performance.now() - this.#sent > BETWEEN;
  }

  send() {
    const count = this.#frames.length;
    const before = new Uint8Array(count * BINS);
    const after = new Uint8Array(count * BINS);
    this.#frames.forEach((frame, n) => {
      levels(frame.before, before, n * BINS);
      levels(frame.after, after, n * BINS);
    });
    const probabilities = Float32Array.from(this.#probabilities);
    const { busy, skipped } = this;
    postMessage(
      { type: "frames", id: this.#id, before, after, probabilities, busy, skipped },
      [before, after, probabilities].map((a) => a.buffer),
    );
    this.#frames = [];
    this.#probabilities = [];
    this.#sent = performance.now();
  }

  /** Sends what is left, and the whole sound before and after; `rest` is that of the denoiser. */
  end(rest) {
    this.send();
    const before = joined(this.#heard);
    // What was cleaned came out late.
    const after = joined([...this.#cleaned, rest]).slice(HOP, HOP + before.length);
    const file = wav(after, RATE);
    const message = { type: "end", id: this.#id, sounds: { before, after }, file };
    postMessage(message, [before.buffer, after.buffer]);
  }
}

function joined(parts) {
  const all = new Float32Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The mean of channels. */
function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, n) => channels.reduce((sum, c) => sum + c[n], 0) / channels.length);
}

const devicesOf = (models) =>
  Object.values(models).map((m) => ({ model: m.name, device: m.device, name: m.deviceName, choice: m.choice }));

async function recording({ id, channels, device }) {
  const models = await open(id, device);
  const samples = mono(channels);
  const all = mirrored(samples);
  const streams = await begin(models, all.subarray(0, HOP));
  postMessage({ type: "begin", id, devices: devicesOf(models) });
  const report = new Report(id);
  const count = frameCount(samples.length);
  for (let n = 0; n < count && current === id; n++) {
    const started = performance.now();
    const at = (n + 1) * HOP;
    const frame = await streams.denoiser.push(all.subarray(at, at + HOP));
    // The sound itself begins half a frame later.
    const heard = samples.subarray(n * HOP, (n + 1) * HOP);
    const probabilities = await streams.voice.push(heard);
    if (n + 1 === count) probabilities.push(...(await streams.voice.finish()));
    report.busy += performance.now() - started;
    report.add(frame, heard, probabilities);
    if (report.isDue) {
      report.send();
      await turn();
    }
  }
  report.end(streams.denoiser.rest());
  await streams.end();
}

async function live({ id, port, rate, device }) {
  const waiting = [];
  let wake = () => {};
  port.onmessage = ({ data }) => {
    waiting.push(data);
    wake();
  };
  const models = await open(id, device);
  const streams = await begin(models);
  const [down, up] = rate === RATE ? [null, null] : [new Resampler(rate, RATE), new Resampler(RATE, rate)];
  postMessage({ type: "begin", id, devices: devicesOf(models) });
  const report = new Report(id);
  // What came while the models were loaded is not waited for.
  waiting.length = 0;
  let held = new Float32Array(0);
  while (current === id) {
    while (waiting.reduce((sum, w) => sum + w.length, 0) > MAX_WAITING * rate) {
      report.skipped += (waiting.shift().length * RATE) / rate;
    }
    if (waiting.length === 0) {
      await Promise.race([new Promise((resolve) => (wake = resolve)), stopped]);
      continue;
    }
    const block = waiting.shift();
    const came = down ? down.push(block) : block;
    const samples = joined([held, came]);
    let at = 0;
    for (; at + HOP <= samples.length; at += HOP) {
      const started = performance.now();
      const heard = samples.slice(at, at + HOP);
      const frame = await streams.denoiser.push(heard);
      const probabilities = await streams.voice.push(heard);
      report.busy += performance.now() - started;
      report.add(frame, heard, probabilities);
      port.postMessage(up ? up.push(frame.samples) : frame.samples);
    }
    held = samples.slice(at);
    if (report.isDue) {
      report.send();
      await turn();
    }
  }
  port.close();
  report.end(streams.denoiser.rest());
  await streams.end();
}

let stop = () => {};
let stopped = Promise.resolve();
/** Jobs run one after the other, because they share the models. */
let last = Promise.resolve();

onmessage = ({ data: job }) => {
  stop();
  if (job.type === "stop") {
    current = 0;
    return;
  }
  current = job.id;
  stopped = new Promise((resolve) => (stop = resolve));
  last = last.then(async () => {
    try {
      // It was stopped before it began.
      if (current !== job.id) return postMessage({ type: "end", id: job.id });
      await (job.type === "live" ? live(job) : recording(job));
    } catch (e) {
      // Whatever it was, the next job begins with new models.
      await close();
      postMessage({ type: "error", id: job.id, kind: e?.kind ?? e?.name, message: e?.message ?? String(e) });
    }
  });
};
