// Sound from files and from the microphone, as samples at 16 kHz.
import { RATE } from "./frames.js";

/** Minutes of a recording, and bytes of a file, at most. */
const MAX_MINUTES = 10;
const MAX_BYTES = 200 << 20;

/** The samples of a file, channel by channel. */
export async function decode(file) {
  if (file.size > MAX_BYTES) {
    throw new Error(`${file.name} has ${Math.round(file.size / 2 ** 20)} MB; this page takes at most ${MAX_BYTES >> 20}. The command takes any length: recurve run models/gtcrn.onnx --wav FILE.`);
  }
  const bytes = await file.arrayBuffer();
  let buffer;
  try {
    // What is decoded in a context has its rate.
    buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  } catch {
    throw new Error(`${file.name} is not a recording that this browser can read. A .wav file was expected.`);
  }
  if (buffer.duration > 60 * MAX_MINUTES) {
    throw new Error(`${file.name} has ${Math.round(buffer.duration / 60)} minutes; this page takes at most ${MAX_MINUTES}. The command takes any length: recurve run models/gtcrn.onnx --wav FILE.`);
  }
  return Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c).slice());
}

/** What the microphone needs that this browser or page lacks, in words; null if nothing. */
export function microphoneLacks() {
  if (!isSecureContext) return "The microphone works only on pages from https:// or localhost.";
  if (!navigator.mediaDevices?.getUserMedia) return "This browser gives pages no microphone.";
  if (!("AudioWorklet" in window)) return "This browser has no AudioWorklet, which carries the sound to the models.";
  return null;
}

/** An open microphone: `port` gives its samples to a worker and takes what is to be heard. */
export async function openMicrophone() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  let context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
  try {
    let source;
    try {
      source = context.createMediaStreamSource(stream);
    } catch {
      // Some browsers take a microphone only at its own rate; the worker converts it then.
      await context.close();
      context = new AudioContext({ latencyHint: "interactive" });
      source = context.createMediaStreamSource(stream);
    }
    await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "microphone", { outputChannelCount: [1] });
    const { port1, port2 } = new MessageChannel();
    node.port.postMessage({ worker: port1 }, [port1]);
    source.connect(node).connect(context.destination);
    await context.resume();
    return {
      port: port2,
      rate: context.sampleRate,
      /** Called if the microphone is unplugged or taken away. */
      onEnd: (call) => stream.getTracks().forEach((track) => track.addEventListener("ended", call)),
      hear: (on) => node.port.postMessage({ hear: on }),
      close: async () => {
        node.port.postMessage({ stop: true });
        stream.getTracks().forEach((track) => track.stop());
        await context.close();
      },
    };
  } catch (e) {
    stream.getTracks().forEach((track) => track.stop());
    if (context.state !== "closed") await context.close();
    throw e;
  }
}
