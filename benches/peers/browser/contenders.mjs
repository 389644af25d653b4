// One library with one model, opened in a page or in a worker, behind one function `call`.
//
// `open({ library, device, threads, proxy, place, kind, batch })` imports the library from this server, fetches the
// model, and gives `{ call(n), threads }`. `call(n)` runs frame n of a stream, or the whole sequence of a layer, from
// arrays to arrays, and gives the output. Whatever the library lets its users do by default is done by default.

import { LAYERS, STREAMS, samples, sequence, swapped } from "./models.mjs";

/** How many frames of audio a stream repeats. */
export const FRAMES = 64;

async function bytes(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: the server answered ${response.status}`);
  return response.arrayBuffer();
}

/** What goes in: frames of audio, or a sequence. */
export async function inputs({ kind, batch }) {
  const stream = STREAMS[kind];
  if (!stream) return [sequence(kind, batch)];
  return stream.frames(samples(await bytes("/models/noisy_speech.wav")), FRAMES);
}

const address = (kind) => `/models/${STREAMS[kind]?.file ?? `${kind}.onnx`}`;

async function recurve({ device, kind, batch, threads, place }, frames) {
  const { load } = await import("/dist/index.js");
  const model = await load(new URL(address(kind), location.origin), { device, threads, worker: place === "page" });
  const stream = STREAMS[kind];
  if (!stream) {
    const { T, I } = LAYERS[kind];
    const x = { data: frames[0], dims: [T, batch, I] };
    return { call: async () => (await model.run({ x })).y.data, threads: model.threads, choice: () => model.choice?.reason };
  }
  const session = await model.session();
  const sr = stream.rate ? { sr: { data: BigInt64Array.of(16000n), dims: [] } } : {};
  const call = async (n) => {
    const given = await session.run({ [stream.input]: { data: frames[n % FRAMES], dims: stream.dims }, ...sr });
    return given[stream.output].data;
  };
  return { call, threads: model.threads, choice: () => model.choice?.reason };
}

async function onnxruntime({ device, kind, batch, threads, proxy, build }, frames) {
  const file = `ort.${build ?? device}.bundle.min.mjs`;
  const ort = await import(`/node_modules/onnxruntime-web/dist/${file}`);
  if (threads) ort.env.wasm.numThreads = threads;
  ort.env.wasm.proxy = !!proxy;
  const session = await ort.InferenceSession.create(address(kind), { executionProviders: [device] });
  const used = ort.env.wasm.numThreads;
  // Its proxy takes the caller's arrays away, so that they have to be copied first.
  const kept = (array) => (proxy ? array.slice() : array);
  const stream = STREAMS[kind];
  if (!stream) {
    const { T, I } = LAYERS[kind];
    const call = async () => {
      const x = new ort.Tensor("float32", kept(frames[0]), [T, batch, I]);
      return (await session.run({ x })).y.data;
    };
    return { call, threads: used };
  }
  const feeds = {};
  for (const { input, dims } of stream.states)
    feeds[input] = new ort.Tensor("float32", new Float32Array(dims.reduce((a, b) => a * b)), dims);
  const call = async (n) => {
    feeds[stream.input] = new ort.Tensor("float32", kept(frames[n % FRAMES]), stream.dims);
    if (stream.rate) feeds.sr = new ort.Tensor("int64", BigInt64Array.of(16000n), []);
    const given = await session.run(feeds);
    for (const { input, output } of stream.states) feeds[input] = given[output];
    return given[stream.output].data;
  };
  return { call, threads: used };
}

async function tfjs({ device, kind, batch, threads }, frames) {
  if (kind !== "lstm") throw new Error(`TF.js has no ${kind}`);
  await import("/node_modules/@tensorflow/tfjs/dist/tf.min.js");
  await import(`/node_modules/@tensorflow/tfjs-backend-${device}/dist/tf-backend-${device}.min.js`);
  const { tf } = globalThis;
  if (device === "wasm") {
    tf.wasm.setWasmPaths("/node_modules/@tensorflow/tfjs-backend-wasm/dist/");
    if (threads) tf.wasm.setThreadsCount(threads);
  }
  if (!(await tf.setBackend(device))) throw new Error(`TF.js refuses the backend ${device}`);
  await tf.ready();
  const { T, I, H } = LAYERS.lstm;
  const all = new Float32Array(await bytes("/models/lstm.keras.bin"));
  const layer = tf.layers.lstm({
    units: H,
    returnSequences: true,
    recurrentActivation: "sigmoid",
    inputShape: [T, I],
  });
  const model = tf.sequential({ layers: [layer] });
  const sizes = [
    [I, 4 * H],
    [H, 4 * H],
    [4 * H],
  ];
  let at = 0;
  layer.setWeights(
    sizes.map((dims) => {
      const count = dims.reduce((a, b) => a * b);
      at += count;
      return tf.tensor(all.slice(at - count, at), dims);
    }),
  );
  const turned = swapped(frames[0], T, batch, I);
  const call = async () => {
    const x = tf.tensor3d(turned, [batch, T, I]);
    const y = model.predict(x, { batchSize: batch });
    const data = await y.data();
    x.dispose();
    y.dispose();
    return data;
  };
  const used = device === "wasm" ? tf.wasm.getThreadsCount() : 1;
  return { call, threads: used, after: (y) => swapped(y, batch, T, H) };
}

const LIBRARIES = { recurve, onnxruntime, tfjs };

export async function open(spec, frames) {
  return LIBRARIES[spec.library](spec, frames ?? (await inputs(spec)));
}
