// The models and inputs of the comparison, the same for node and for every page.
//
// The recurrent layers have random weights from a seed. They are an ONNX file for Recurve and ONNX Runtime Web, and
// arrays in Keras's order for TF.js; `reference` computes them from their definition in f64.

/** Numbers that are spread evenly over [-1, 1), from a seed. */
export function uniform(seed, count, scale = 1) {
  const out = new Float32Array(count);
  let a = seed >>> 0;
  for (let k = 0; k < count; k++) {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    out[k] = (((t ^ (t >>> 14)) >>> 0) / 2147483648 - 1) * scale;
  }
  return out;
}

/** Recurrent layers: T timesteps, I features, H units; `gru` has its reset gate after the product, as Keras's. */
export const LAYERS = {
  lstm: { op: "LSTM", gates: 4, T: 256, I: 128, H: 128 },
  gru: { op: "GRU", gates: 3, T: 256, I: 128, H: 128 },
};

/** The weights in ONNX's layout: W [G·H, I], R [G·H, H], b [2·G·H]. */
export function weights(kind) {
  const { gates, I, H } = LAYERS[kind];
  const scale = 1 / Math.sqrt(H);
  return {
    w: uniform(1, gates * H * I, scale),
    r: uniform(2, gates * H * H, scale),
    b: uniform(3, 2 * gates * H, scale),
  };
}

/** The input [T, B, I]. */
export function sequence(kind, batch) {
  const { T, I } = LAYERS[kind];
  return uniform(4 + batch, T * batch * I);
}

// Keras ---------------------------------------------------------------------------------------------------------------

/** The LSTM's weights as Keras has them: kernel [I, 4·H], recurrent kernel [H, 4·H] and bias [4·H], gates i f c o. */
export function kerasLstm() {
  const { I, H } = LAYERS.lstm;
  const { w, r, b } = weights("lstm");
  const place = [0, 2, 3, 1]; // where ONNX's i o f c have Keras's gates
  const turned = (from, width) => {
    const out = new Float32Array(width * 4 * H);
    for (let g = 0; g < 4; g++)
      for (let h = 0; h < H; h++)
        for (let k = 0; k < width; k++) out[k * 4 * H + g * H + h] = from[(place[g] * H + h) * width + k];
    return out;
  };
  const bias = new Float32Array(4 * H);
  for (let g = 0; g < 4; g++)
    for (let h = 0; h < H; h++) bias[g * H + h] = b[place[g] * H + h] + b[4 * H + place[g] * H + h];
  return { kernel: turned(w, I), recurrent: turned(r, H), bias };
}

/** [P, Q, width] to [Q, P, width]: between timesteps first and batch first. */
export function swapped(data, P, Q, width) {
  const out = new Float32Array(data.length);
  for (let p = 0; p < P; p++)
    for (let q = 0; q < Q; q++)
      out.set(data.subarray((p * Q + q) * width, (p * Q + q + 1) * width), (q * P + p) * width);
  return out;
}

// The definition ------------------------------------------------------------------------------------------------------

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** The layer's output [T, B, H] in f64. */
export function reference(kind, batch) {
  const { gates, T, I, H } = LAYERS[kind];
  const { w, r, b } = weights(kind);
  const x = sequence(kind, batch);
  const out = new Float64Array(T * batch * H);
  for (let n = 0; n < batch; n++) {
    let h = new Float64Array(H);
    const c = new Float64Array(H);
    for (let t = 0; t < T; t++) {
      const from = (t * batch + n) * I;
      const taken = new Float64Array(gates * H); // W x + b
      const carried = new Float64Array(gates * H); // R h + b
      for (let k = 0; k < gates * H; k++) {
        let a = b[k];
        for (let j = 0; j < I; j++) a += w[k * I + j] * x[from + j];
        taken[k] = a;
        a = b[gates * H + k];
        for (let j = 0; j < H; j++) a += r[k * H + j] * h[j];
        carried[k] = a;
      }
      const next = new Float64Array(H);
      for (let u = 0; u < H; u++) {
        const sum = (g) => taken[g * H + u] + carried[g * H + u];
        if (kind === "lstm") {
          c[u] = sigmoid(sum(2)) * c[u] + sigmoid(sum(0)) * Math.tanh(sum(3));
          next[u] = sigmoid(sum(1)) * Math.tanh(c[u]);
        } else {
          const z = sigmoid(sum(0));
          const fresh = Math.tanh(taken[2 * H + u] + sigmoid(sum(1)) * carried[2 * H + u]);
          next[u] = (1 - z) * fresh + z * h[u];
        }
      }
      h = next;
      out.set(h, (t * batch + n) * H);
    }
  }
  return out;
}

// Audio ---------------------------------------------------------------------------------------------------------------

/** The samples of a mono WAV file of 16-bit integers. */
export function samples(bytes) {
  const view = new DataView(bytes);
  const name = (at) => String.fromCharCode(...new Uint8Array(bytes, at, 4));
  for (let at = 12; at + 8 <= bytes.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (name(at) === "data") {
      const count = Math.floor(Math.min(size, bytes.byteLength - at - 8) / 2);
      return Float32Array.from({ length: count }, (_, k) => view.getInt16(at + 8 + 2 * k, true) / 32768);
    }
    at += 8 + size + (size % 2);
  }
  throw new Error("the WAV file has no chunk `data`");
}

/** Models that take audio frame by frame: their frames, inputs, and the states they give and take. */
export const STREAMS = {
  silero: {
    file: "silero_vad.onnx",
    input: "input",
    output: "output",
    dims: [1, 576],
    states: [{ input: "state", output: "stateN", dims: [2, 1, 128] }],
    rate: true,
    /** 64 samples of context, then 512 new ones. */
    frames(audio, count) {
      const padded = new Float32Array(64 + audio.length);
      padded.set(audio, 64);
      return Array.from({ length: count }, (_, k) => padded.slice(k * 512, k * 512 + 576));
    },
  },
  gtcrn: {
    file: "gtcrn.onnx",
    input: "mix",
    output: "enh",
    dims: [1, 257, 1, 2],
    states: [
      { input: "conv_cache", output: "conv_cache_out", dims: [2, 1, 16, 16, 33] },
      { input: "tra_cache", output: "tra_cache_out", dims: [2, 3, 1, 1, 16] },
      { input: "inter_cache", output: "inter_cache_out", dims: [2, 1, 33, 16] },
    ],
    rate: false,
    /** Spectra of 512 samples under the square root of a Hann window, 256 apart. */
    frames(audio, count) {
      return Array.from({ length: count }, (_, k) => {
        const frame = new Float32Array(514);
        for (let f = 0; f < 257; f++) {
          let re = 0;
          let im = 0;
          for (let n = 0; n < 512; n++) {
            const v = audio[k * 256 + n] * Math.sin((Math.PI * n) / 512);
            re += v * Math.cos((2 * Math.PI * ((f * n) % 512)) / 512);
            im -= v * Math.sin((2 * Math.PI * ((f * n) % 512)) / 512);
          }
          frame[2 * f] = re;
          frame[2 * f + 1] = im;
        }
        return frame;
      });
    },
  },
};
