// ONNX files with one recurrent layer, written field by field as onnx.proto numbers them.

const encoder = new TextEncoder();

function varint(n) {
  const bytes = [];
  for (; n > 127; n = Math.floor(n / 128)) bytes.push((n % 128) + 128);
  bytes.push(n);
  return bytes;
}

/** A field with a whole number. */
const number = (field, n) => Uint8Array.from([...varint(field * 8), ...varint(n)]);

/** A field with text, bytes, or a message that consists of fields. */
function block(field, ...parts) {
  const bytes = parts.map((p) => (typeof p === "string" ? encoder.encode(p) : p));
  const head = [...varint(field * 8 + 2), ...varint(bytes.reduce((sum, b) => sum + b.length, 0))];
  return joined([Uint8Array.from(head), ...bytes]);
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

const FLOAT = 1;
const INT_ATTRIBUTE = 2;
const IR_VERSION = 8;
const OPERATOR_SET = 14;

/** A TensorProto. */
function tensor(name, dims, data) {
  // The elements are little-endian in the file.
  const raw = new DataView(new ArrayBuffer(4 * data.length));
  data.forEach((x, n) => raw.setFloat32(4 * n, x, true));
  return [...dims.map((d) => number(1, d)), number(2, FLOAT), block(8, name), block(9, new Uint8Array(raw.buffer))];
}

/** A ValueInfoProto of floats; sizes are numbers, or names of open ones. */
function value(name, dims) {
  const sizes = dims.map((d) => block(1, typeof d === "number" ? number(1, d) : block(2, d)));
  return [block(1, name), block(2, block(1, number(1, FLOAT), block(2, ...sizes)))];
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
  const attribute = (name, n) => block(5, block(1, name), number(3, n), number(20, INT_ATTRIBUTE));
  const node = block(
    1,
    ...["x", "W", "R", "B"].map((name) => block(1, name)),
    block(2, "y"),
    block(3, "layer"),
    block(4, cell),
    attribute("hidden_size", units),
    ...(cell === "GRU" ? [attribute("linear_before_reset", 1)] : []),
  );
  const graph = block(
    7,
    node,
    block(2, cell),
    ...Object.entries(weights).map(([name, { dims, data }]) => block(5, ...tensor(name, dims, data))),
    block(11, ...value("x", ["T", batch, inputs])),
    block(12, ...value("y", ["T", 1, batch, units])),
  );
  const bytes = joined([number(1, IR_VERSION), block(2, "recurve-demo"), graph, block(8, number(2, OPERATOR_SET))]);
  return { bytes, weights };
}
