// ONNX files, written field by field as onnx.proto numbers them.

const encoder = new TextEncoder();

function varint(n) {
  const bytes = [];
  let rest = BigInt.asUintN(64, BigInt(n));
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return [...bytes, Number(rest)];
}

/** A field with a whole number. */
const number = (field, n) => Uint8Array.from([...varint(field * 8), ...varint(n)]);

/** A field with text, bytes, or a message that consists of fields. */
function block(field, ...parts) {
  const body = joined(parts.map((p) => (typeof p === "string" ? encoder.encode(p) : p)));
  return joined([Uint8Array.from([...varint(field * 8 + 2), ...varint(body.length)]), body]);
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Types of elements. */
export const FLOAT = 1;
export const INT64 = 7;

const INT_ATTRIBUTE = 2;
const IR_VERSION = 8;

/** A TensorProto: floats, or int64 from a BigInt64Array. */
export function tensor(name, dims, data) {
  const whole = data instanceof BigInt64Array;
  // The elements are little-endian in the file.
  const raw = new DataView(new ArrayBuffer(data.length * data.BYTES_PER_ELEMENT));
  data.forEach((x, n) => (whole ? raw.setBigInt64(8 * n, x, true) : raw.setFloat32(4 * n, x, true)));
  const type = whole ? INT64 : FLOAT;
  return joined([...dims.map((d) => number(1, d)), number(2, type), block(8, name), block(9, new Uint8Array(raw.buffer))]);
}

/** A ValueInfoProto; sizes are numbers, or names of open ones. */
function value([name, type, dims]) {
  const sizes = dims.map((d) => block(1, typeof d === "number" ? number(1, d) : block(2, d)));
  return joined([block(1, name), block(2, block(1, number(1, type), block(2, ...sizes)))]);
}

/** A NodeProto; attributes are whole numbers. */
const node = ({ op, name = "", inputs, outputs, attributes = {} }) => joined([
  ...inputs.map((i) => block(1, i)),
  ...outputs.map((o) => block(2, o)),
  block(3, name),
  block(4, op),
  ...Object.entries(attributes).map(([key, n]) => block(5, block(1, key), number(3, n), number(20, INT_ATTRIBUTE))),
]);

/**
 * The bytes of a file. `weights` are what `tensor` gives; inputs and outputs are `[name, type, dims]`, of which sizes are
 * numbers, or names of open ones.
 */
export function model({ name = "graph", nodes, weights = [], inputs, outputs, opset = 17 }) {
  const graph = block(
    7,
    ...nodes.map((n) => block(1, node(n))),
    block(2, name),
    ...weights.map((w) => block(5, w)),
    ...inputs.map((i) => block(11, value(i))),
    ...outputs.map((o) => block(12, value(o))),
  );
  return joined([number(1, IR_VERSION), block(2, "recurve"), graph, block(8, number(2, opset))]);
}

/** Numbers between -bound and bound that are the same every time. */
function* uniform(bound) {
  for (let seed = 1; ; ) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    yield (seed / 2 ** 31 - 1) * bound;
  }
}

/**
 * A layer "LSTM" or "GRU" (with PyTorch's and Keras's form of the reset gate) with random weights, as the bytes of a
 * file and its weights. Input "x" [T, batch, inputs] with T open, output "y" [T, 1, batch, units].
 */
export function recurrentLayer({ cell, inputs, units, batch }) {
  const gates = { LSTM: 4, GRU: 3 }[cell];
  if (!gates) throw new RangeError(`cell: LSTM or GRU was expected, and ${cell} came`);
  const random = uniform(1 / Math.sqrt(units));
  const draw = (...dims) => ({ dims, data: Float32Array.from({ length: dims.reduce((a, b) => a * b) }, () => random.next().value) });
  const weights = { W: draw(1, gates * units, inputs), R: draw(1, gates * units, units), B: draw(1, 2 * gates * units) };
  const bytes = model({
    name: cell,
    nodes: [{
      op: cell,
      name: "layer",
      inputs: ["x", "W", "R", "B"],
      outputs: ["y"],
      attributes: { hidden_size: units, ...(cell === "GRU" ? { linear_before_reset: 1 } : {}) },
    }],
    weights: Object.entries(weights).map(([name, { dims, data }]) => tensor(name, dims, data)),
    inputs: [["x", FLOAT, ["T", batch, inputs]]],
    outputs: [["y", FLOAT, ["T", 1, batch, units]]],
    opset: 14,
  });
  return { bytes, weights };
}
