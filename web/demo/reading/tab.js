import { load } from "../../dist/index.js";
import { Notice, byId, deviceWords, digits, make, words } from "../ui.js";
import { pinyin } from "./pinyin.js";

const MODEL = new URL("../models/g2pm.safetensors", import.meta.url);
/** Milliseconds without a key after which the text is read. */
const PAUSE = 150;

export function startReading() {
  const field = byId("text");
  const result = byId("reading");
  const status = byId("reading-status");
  const progress = byId("reading-progress");
  const notice = new Notice(byId("reading-error"));
  const device = byId("reading-device");
  let model = null;
  let timer = 0;
  let asked = 0;

  /** The model on the device that is asked for; the same promise until another is asked for. */
  function open() {
    if (model?.device !== device.value) {
      model?.promise.then((m) => m.dispose()).catch(() => {});
      const onProgress = ({ loaded, total }) => {
        progress.hidden = false;
        if (total) progress.value = loaded / total;
      };
      status.textContent = "Loading the model";
      model = { device: device.value, promise: load(MODEL, { device: device.value, onProgress }) };
    }
    return model.promise;
  }

  function show(text, readings) {
    const by = new Map(readings.map((r) => [r.index, r]));
    const parts = [...text].map((character, n) => {
      const reading = by.get(n);
      if (!reading) return character;
      return make("ruby", {}, character, make("rp", {}, "("), make("rt", { lang: "zh-Latn" }, pinyin(reading.label)), make("rp", {}, ")"));
    });
    result.replaceChildren(...parts);
  }

  async function read() {
    const mine = ++asked;
    const text = field.value;
    notice.clear();
    if (text.trim() === "") {
      result.replaceChildren();
      status.textContent = "";
      return;
    }
    try {
      const opened = await open();
      progress.hidden = true;
      if (mine !== asked) return;
      if (opened.device === "auto") {
        status.textContent = "Measuring which device is faster";
        await opened.readText(text);
        if (mine !== asked) return;
      }
      const started = performance.now();
      const readings = await opened.readText(text);
      const took = performance.now() - started;
      // Another text may have been typed meanwhile.
      if (mine !== asked) return;
      show(text, readings);
      const count = readings.length === 1 ? "1 ambiguous character" : `${readings.length} ambiguous characters`;
      status.textContent = `${count} read in ${digits(took)} ms on ${deviceWords[opened.device] ?? opened.device}.`;
      byId("reading-choice").textContent = opened.choice?.reason ?? "";
    } catch (e) {
      if (mine !== asked) return;
      progress.hidden = true;
      status.textContent = "";
      model = null;
      notice.show(words(e));
    }
  }

  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(read, PAUSE);
  });
  device.addEventListener("change", read);
  for (const example of document.querySelectorAll("[data-example]")) {
    example.addEventListener("click", () => {
      field.value = example.textContent.trim();
      read();
    });
  }
  read();
}
