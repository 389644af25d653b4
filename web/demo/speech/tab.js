import { Notice, byId, calm, clock, deviceWords, digits, make, onceAFrame, words } from "../ui.js";
import { BINS, HOP, RATE, frameCount } from "./frames.js";
import { Player } from "./player.js";
import { decode, microphoneLacks, openMicrophone } from "./sources.js";
import { Spectrogram } from "./spectrogram.js";
import { Strip } from "./strip.js";
import { segments } from "./voice.js";

const EXAMPLE = new URL("../models/noisy_speech.wav", import.meta.url);
/** Seconds of live sound that are shown, and that are recorded at most. */
const LIVE_VIEW = 10;
const LIVE_MAX = 300;

/** Sound on its way through the models, and what has come of it. */
class Job {
  levels = { before: [], after: [] };
  probabilities = [];
  frames = 0;
  busy = 0;
  skipped = 0;
  devices = [];

  /** `length`: the samples of a recording; null for live sound from a microphone. */
  constructor(id, name, length, microphone = null) {
    this.id = id;
    this.name = name;
    this.length = length;
    this.microphone = microphone;
  }

  get isLive() {
    return this.microphone !== null;
  }

  take(message) {
    this.levels.before.push(message.before);
    this.levels.after.push(message.after);
    for (const p of message.probabilities) this.probabilities.push(p);
    this.frames += message.before.length / BINS;
    this.busy = message.busy;
    this.skipped = message.skipped;
  }

  /** Seconds that have gone through the models. */
  get seconds() {
    const samples = this.frames * HOP;
    return (this.isLive ? samples : Math.min(samples, this.length)) / RATE;
  }
}

/** Places of speech in a sentence. */
function speechWords(places) {
  if (places.length === 0) return "No speech was found.";
  const shown = places.slice(0, 6).map(([a, b]) => `${a.toFixed(1)} to ${b.toFixed(1)} s`);
  const more = places.length - shown.length;
  return `Speech from ${shown.join(", ")}${more > 0 ? `, and in ${more} more places` : ""}.`;
}

export function startSpeech() {
  const status = byId("speech-status");
  const progress = byId("speech-progress");
  const notice = new Notice(byId("speech-error"));
  const pictures = {
    before: new Spectrogram(byId("before")),
    after: new Spectrogram(byId("after")),
  };
  const strip = new Strip(byId("speech"));
  const player = new Player();
  let worker = null;
  let job = null;
  let ids = 0;

  const isBusy = () => job !== null;

  function say(text, done = null) {
    status.textContent = text;
    progress.hidden = done === null;
    if (done === null || done < 0) progress.removeAttribute("value");
    else progress.value = done;
  }

  function controls() {
    const live = job?.isLive ?? false;
    byId("stop").hidden = !isBusy();
    byId("hear-row").hidden = !live;
    byId("transport").hidden = isBusy() || player.length === 0;
    for (const id of ["file", "example", "microphone", "speech-device"]) byId(id).disabled = isBusy();
    byId("drop").classList.toggle("busy", isBusy());
    byId("drop").classList.toggle("live", live);
  }

  /** The time axis: a mark every so often. */
  function axis(from, to) {
    const step = [0.5, 1, 2, 5, 10, 30, 60, 120].find((s) => (to - from) / s <= 6) ?? 300;
    const marks = [];
    for (let t = Math.ceil(from / step - 1e-9) * step; t <= to + 1e-9; t += step) {
      if (t < -1e-9) continue;
      const text = to >= 60 ? clock(t).replace(/\.0$/, "") : `${+t.toFixed(1)} s`;
      const mark = make("span", {}, text);
      mark.style.left = `${((t - from) / (to - from)) * 100}%`;
      marks.push(mark);
    }
    byId("time-axis").replaceChildren(...marks);
  }

  function facts(of) {
    const { seconds, busy, devices, isLive, skipped } = of;
    const names = [...new Set(devices.map((d) => deviceWords[d.device] ?? d.device))];
    byId("fact-sound").textContent = `${seconds.toFixed(1)} s`;
    byId("fact-frame").textContent = of.frames ? `${digits(busy / of.frames)} of 16 ms` : "–";
    byId("fact-speed").textContent = busy > 0 ? `${digits((seconds * 1000) / busy)}× real time` : "–";
    byId("fact-device").textContent = names.join(" and ") || "–";
    const why = devices.map((d) => `${d.model}: ${d.choice?.reason ?? `${deviceWords[d.device]}, ${d.name}`}`);
    byId("speech-choice").replaceChildren(...why.map((text) => make("li", {}, text)));
    byId("speech-why").hidden = why.length === 0;
    const late = isLive && skipped > 0;
    byId("skipped").hidden = !late;
    if (late) {
      byId("skipped").textContent = `The models did not keep up: ${(skipped / RATE).toFixed(1)} s of sound were left out.`;
    }
  }

  /** Shows what has come of the job that runs. */
  let lastDrawn = 0;
  const draw = onceAFrame(() => {
    if (!job) return;
    if (job.isLive && calm.matches && performance.now() - lastDrawn < 1000) return;
    lastDrawn = performance.now();
    for (const picture of Object.values(pictures)) picture.draw();
    const now = job.frames * HOP / RATE;
    const [from, to] = job.isLive ? [now - LIVE_VIEW, now] : [0, job.length / RATE];
    strip.show(job.probabilities, from, to);
    axis(from, to);
    facts(job);
    if (!job.isLive) progress.value = job.seconds / to;
  });

  /** Shows a recording that is through, and offers it. */
  function finish(of, sounds, file) {
    const seconds = of.seconds;
    if (of.isLive || of.frames !== frameCount(of.length)) {
      for (const [name, picture] of Object.entries(pictures)) {
        picture.begin(of.frames);
        of.levels[name].forEach((levels) => picture.push(levels));
        picture.draw();
      }
    } else {
      Object.values(pictures).forEach((picture) => picture.draw());
    }
    strip.show(of.probabilities, 0, seconds);
    axis(0, seconds);
    facts(of);
    player.load(sounds, RATE);
    say(`Done. ${speechWords(segments(of.probabilities))}`);
    const link = byId("download");
    if (link.href) URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(file);
    link.download = `${of.name.replace(/\.[^.]*$/, "")}_clean.wav`;
    byId("seek").max = seconds;
  }

  async function end(problem = null) {
    const ended = job;
    job = null;
    if (ended?.microphone) await ended.microphone.close().catch(() => {});
    if (problem) {
      say("");
      notice.show(problem);
    }
    controls();
  }

  function take({ data: message }) {
    if (message.id !== job?.id) return;
    switch (message.type) {
      case "loading": {
        const { loaded, total } = message;
        say(loaded < total || total === 0 ? "Loading the models" : "Preparing the models", total ? loaded / total : -1);
        break;
      }
      case "begin":
        job.devices = message.devices;
        say(job.isLive ? "Listening" : "Removing noise and finding speech", job.isLive ? null : 0);
        break;
      case "frames":
        job.take(message);
        pictures.before.push(message.before);
        pictures.after.push(message.after);
        draw();
        if (job.isLive && job.seconds >= LIVE_MAX) stop();
        break;
      case "end": {
        const of = job;
        if (of.frames > 0) finish(of, message.sounds, message.file);
        else say("Stopped before there was any sound.");
        end();
        break;
      }
      case "error":
        end(words(message));
        break;
    }
  }

  function begin(next, message, transfer = []) {
    job = next;
    player.load({ before: new Float32Array(0), after: new Float32Array(0) }, RATE);
    byId("speech-result").hidden = false;
    const frames = next.isLive ? (LIVE_VIEW * RATE) / HOP : frameCount(next.length);
    for (const picture of Object.values(pictures)) picture.begin(frames, next.isLive);
    if (!worker) {
      worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
      worker.onmessage = take;
      worker.onerror = (event) => {
        event.preventDefault();
        worker?.terminate();
        worker = null;
        end(`The worker with the models stopped${event.message ? `: ${event.message}` : ", or this browser has no module workers"}.`);
      };
    }
    say("Loading the models", -1);
    worker.postMessage({ ...message, id: next.id, device: byId("speech-device").value }, transfer);
    draw();
    controls();
  }

  const stop = () => worker?.postMessage({ type: "stop" });

  /** Work that leads to a job; only one at a time. */
  let starting = false;
  async function start(prepare) {
    if (isBusy() || starting) return;
    starting = true;
    notice.clear();
    try {
      await prepare();
    } catch (e) {
      end(words(e));
    } finally {
      starting = false;
    }
  }

  const takeFile = (file) =>
    start(async () => {
      say(`Reading ${file.name}`, -1);
      const channels = await decode(file);
      const { length } = channels[0];
      if (length <= HOP) throw new Error(`${file.name} is shorter than one frame of 16 ms.`);
      begin(new Job(++ids, file.name, length), { type: "recording", channels }, channels.map((c) => c.buffer));
    });

  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) takeFile(file);
    event.target.value = "";
  });
  byId("example").addEventListener("click", async () => {
    try {
      say("Loading the example", -1);
      const answer = await fetch(EXAMPLE);
      if (!answer.ok) throw new Error(`${EXAMPLE.pathname}: the server answered ${answer.status} ${answer.statusText}`);
      takeFile(new File([await answer.blob()], "noisy_speech.wav"));
    } catch (e) {
      end(words(e));
    }
  });
  byId("microphone").addEventListener("click", () =>
    start(async () => {
      say("Waiting for the microphone", -1);
      const microphone = await openMicrophone();
      microphone.onEnd(stop);
      byId("hear").checked = false;
      begin(
        new Job(++ids, "microphone.wav", null, microphone),
        { type: "live", port: microphone.port, rate: microphone.rate },
        [microphone.port],
      );
    }),
  );
  byId("stop").addEventListener("click", stop);
  byId("hear").addEventListener("change", (event) => job?.microphone?.hear(event.target.checked));

  const drop = byId("drop");
  let depth = 0;
  const over = (by) => {
    depth = Math.max(0, depth + by);
    drop.classList.toggle("over", depth > 0);
  };
  drop.addEventListener("dragenter", (event) => {
    event.preventDefault();
    over(1);
  });
  drop.addEventListener("dragleave", () => over(-1));
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    const [file] = event.dataTransfer.files;
    if (file) takeFile(file);
  });
  // A file that misses its place does not replace the page.
  for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());

  const lacks = microphoneLacks();
  if (lacks) {
    byId("microphone").hidden = true;
    byId("microphone-lacks").textContent = lacks;
    byId("microphone-lacks").hidden = false;
  }

  // Playing.
  const seek = byId("seek");
  const head = byId("playhead");
  function moment() {
    const { time, length } = player;
    head.hidden = length === 0 || (time === 0 && !player.isPlaying);
    head.style.left = `${length ? (time / length) * 100 : 0}%`;
    seek.value = time;
    seek.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${length.toFixed(1)} seconds`);
    byId("moment").textContent = `${clock(time)} / ${clock(length)}`;
  }
  const follow = onceAFrame(() => {
    moment();
    if (player.isPlaying) follow();
  });
  player.addEventListener("change", () => {
    byId("play").textContent = player.isPlaying ? "Pause" : "Play";
    byId("play").classList.toggle("playing", player.isPlaying);
    follow();
  });
  byId("play").addEventListener("click", () => (player.isPlaying ? player.stop() : player.play()));
  seek.addEventListener("input", () => player.seek(Number(seek.value)));
  for (const choice of document.querySelectorAll('input[name="heard"]')) {
    choice.addEventListener("change", () => player.hear(choice.value));
  }
  byId("stage").addEventListener("click", (event) => {
    const { left, width } = byId("stage").getBoundingClientRect();
    if (!isBusy()) player.seek(((event.clientX - left) / width) * player.length);
  });
  controls();
}
