import { devices } from "../dist/index.js";
import { startBench } from "./bench/tab.js";
import { startReading } from "./reading/tab.js";
import { startSpeech } from "./speech/tab.js";
import { byId, words } from "./ui.js";

const starts = { speech: startSpeech, reading: startReading, bench: startBench };
const tabs = [...document.querySelectorAll('[role="tab"]')];
const started = new Set();

function show(name, focus = false) {
  for (const tab of tabs) {
    const isThis = tab.dataset.tab === name;
    tab.setAttribute("aria-selected", isThis);
    tab.tabIndex = isThis ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !isThis;
    if (isThis && focus) tab.focus();
  }
  if (!started.has(name)) {
    started.add(name);
    starts[name](found);
  }
}

for (const [n, tab] of tabs.entries()) {
  tab.addEventListener("click", () => {
    history.replaceState(null, "", `#${tab.dataset.tab}`);
    show(tab.dataset.tab);
  });
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: n + 1, ArrowLeft: n - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = tabs.at(to % tabs.length);
    history.replaceState(null, "", `#${next.dataset.tab}`);
    show(next.dataset.tab, true);
  });
}

/** The devices of this browser; tabs wait for it only where they need it. */
const found = devices().then(
  (all) => {
    const gpu = all.find((d) => d.device === "webgpu");
    byId("devices").textContent = gpu
      ? `WebGPU${gpu.name ? ` (${gpu.name})` : ""} and WebAssembly`
      : `WebAssembly. ${navigator.gpu ? "WebGPU has no adapter here" : "This browser has no WebGPU"}, so nothing runs on a GPU.`;
    if (!gpu) {
      for (const option of document.querySelectorAll('option[value="webgpu"]')) {
        option.disabled = true;
        option.textContent = "WebGPU (not here)";
      }
    }
    return all;
  },
  (e) => {
    byId("devices").textContent = words(e);
    return [];
  },
);

const wanted = () => (location.hash.slice(1) in starts ? location.hash.slice(1) : "speech");
addEventListener("hashchange", () => show(wanted()));
show(wanted());
