// Small ONNX files, written for a test.

const bytes = (...parts) => Buffer.concat(parts.map((p) => Buffer.from(p)));

function varint(n) {
  const all = [];
  for (let v = BigInt.asUintN(64, BigInt(n)); ; v >>= 7n) {
    if (v < 128n) return Buffer.from([...all, Number(v)]);
    all.push(Number(v & 127n) | 128);
  }
}

const number = (field, n) => bytes(varint(field << 3), varint(n));
const part = (field, body) => bytes(varint(field << 3 | 2), varint(Buffer.byteLength(body)), body);

/** A TensorProto of floats or of int64. */
export function tensor(name, dims, data) {
  const whole = data instanceof BigInt64Array;
  return bytes(...dims.map((d) => number(1, d)), number(2, whole ? 7 : 1), part(8, name),
    part(9, Buffer.from(data.buffer, data.byteOffset, data.byteLength)));
}

const node = ({ op, inputs, outputs, attributes = {} }) => bytes(
  ...inputs.map((i) => part(1, i)),
  ...outputs.map((o) => part(2, o)),
  part(4, op),
  ...Object.entries(attributes).map(([name, v]) => part(5, bytes(part(1, name), number(3, v), number(20, 2)))),
);

/** A ValueInfoProto; a dimension is a number or a name. */
function value([name, type, dims]) {
  const shape = bytes(...dims.map((d) => part(1, typeof d === "number" ? number(1, d) : part(2, d))));
  return bytes(part(1, name), part(2, part(1, bytes(number(1, type), part(2, shape)))));
}

/** A ModelProto. */
export function model({ nodes, weights = [], inputs, outputs, opset = 17 }) {
  const graph = bytes(...nodes.map((n) => part(1, node(n))), part(2, "test"), ...weights.map((w) => part(5, w)),
    ...inputs.map((i) => part(11, value(i))), ...outputs.map((o) => part(12, value(o))));
  return bytes(number(1, 8), part(7, graph), part(8, number(2, opset)));
}
