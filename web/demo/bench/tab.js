import { load } from "../../dist/index.js";
import { Notice, byId, deviceWords, digits, make, words } from "../ui.js";
import { drawChart } from "./chart.js";
import { recurrentLayer } from "./onnx.js";

const LENGTHS = [1, 4, 16, 64, 256, 1024];
/** Milliseconds of calls at one length; a device stops at a length whose call takes longer than LONGEST. */
const BUDGET = 400;
const LONGEST = 4000;
/** Milliseconds that are timed at once, because clocks of browsers are coarse. */
const AT_ONCE = 5;

const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];

export function startBench(found) {
  const form = byId("bench-form");
  const notice = new Notice(byId("bench-error"));
  const status = byId("bench-status");
  const progress = byId("bench-progress");
  let draw = () => {};
  new ResizeObserver(() => draw()).observe(byId("chart"));
  let stopped = false;
  let running = false;

  function show(results, layer) {
    const series = Object.entries(results).map(([device, points]) => ({ device, points: [...points] }));
    byId("legend").replaceChildren(
      ...series.map(({ device }) => make("li", { class: device }, deviceWords[device])),
    );
    const heads = ["Timesteps", ...series.map((s) => deviceWords[s.device])];
    byId("bench-head").replaceChildren(make("tr", {}, ...heads.map((h) => make("th", { scope: "col" }, h))));
    const rows = LENGTHS.map((t) => {
      const times = series.map((s) => s.points.find(([at]) => at === t)?.[1]);
      const best = Math.min(...times.filter((ms) => ms !== undefined));
      const cells = times.map((ms) => {
        const isBest = ms === best && times.filter((other) => other !== undefined).length > 1;
        return make("td", isBest ? { class: "best" } : {}, ms === undefined ? "–" : `${digits(ms)} ms`);
      });
      return make("tr", {}, make("th", { scope: "row" }, t), ...cells);
    });
    byId("bench-rows").replaceChildren(...rows);
    byId("bench-caption").textContent = `Milliseconds of a call, median. ${layer}.`;
    byId("bench-result").hidden = false;
    draw = () => drawChart(byId("chart"), LENGTHS, series);
    draw();
  }

  /** Median milliseconds of a call with T timesteps. */
  async function time(model, steps, { batch, inputs }) {
    const data = Float32Array.from({ length: steps * batch * inputs }, (_, n) => Math.sin(n));
    const x = { x: { data, dims: [steps, batch, inputs] } };
    const calls = async (count) => {
      const started = performance.now();
      for (let n = 0; n < count; n++) await model.run(x);
      return (performance.now() - started) / count;
    };
    // The first call compiles and allocates.
    await calls(1);
    if (stopped) return null;
    const times = [await calls(1)];
    const together = Math.ceil(AT_ONCE / Math.max(times[0], 0.05));
    for (let spent = times[0]; spent < BUDGET && !stopped; spent += together * times.at(-1)) {
      times.push(await calls(together));
    }
    return median(times);
  }

  async function measure(values) {
    const units = Number(values.units);
    const sizes = { cell: values.cell, units, inputs: units, batch: Number(values.batch) };
    const layer = `${sizes.cell} with ${units} inputs and ${units} units, batch ${sizes.batch}`;
    const available = (await found).map((d) => d.device);
    const wanted = ["wasm", "webgpu"].filter((d) => available.includes(d));
    const results = {};
    const { bytes } = recurrentLayer(sizes);
    for (const [n, device] of wanted.entries()) {
      results[device] = new Map();
      const name = deviceWords[device];
      status.textContent = `Measuring on ${name}`;
      progress.value = n / wanted.length;
      const model = await load(bytes, { device });
      try {
        for (const [k, steps] of LENGTHS.entries()) {
          const ms = stopped ? null : await time(model, steps, sizes);
          if (ms === null) break;
          results[device].set(steps, ms);
          show(results, layer);
          progress.value = (n + (k + 1) / LENGTHS.length) / wanted.length;
          if (ms > LONGEST) break;
        }
      } finally {
        await model.dispose();
      }
    }
    if (!available.includes("webgpu")) {
      notice.show("WebGPU is not available in this browser, so only WebAssembly was measured.");
    }
    status.textContent = stopped ? "Stopped." : `Done: ${layer}.`;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    running = true;
    stopped = false;
    notice.clear();
    byId("bench-start").hidden = true;
    byId("bench-stop").hidden = false;
    byId("bench-stop").focus();
    // What is disabled has no values, so they are read before.
    const values = Object.fromEntries(new FormData(form));
    byId("bench-sizes").disabled = true;
    progress.hidden = false;
    try {
      await measure(values);
    } catch (e) {
      status.textContent = "";
      notice.show(words(e));
    } finally {
      running = false;
      progress.hidden = true;
      byId("bench-sizes").disabled = false;
      byId("bench-start").hidden = false;
      byId("bench-stop").hidden = true;
      byId("bench-start").focus();
    }
  });
  byId("bench-stop").addEventListener("click", () => {
    stopped = true;
    status.textContent = "Stopping after this call";
  });
}
