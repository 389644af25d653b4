// Arrays of fixtures: NumPy's files, ONNX's tensors, and their comparison.

import { inflateRawSync } from "node:zlib";

const KINDS = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, i8: BigInt64Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, u8: BigUint64Array, b1: Uint8Array,
};

/** IEEE half precision. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = bits >> 10 & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * fraction / 1024);
}

const typed = (bytes, Kind) => new Kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));

/** An array of a `.npy` file, `{ data, dims }`. */
export function npy(bytes) {
  if (bytes.subarray(1, 6).toString("latin1") !== "NUMPY" || bytes[0] !== 0x93) throw new Error("no NPY file");
  const wide = bytes[6] > 1;
  const start = wide ? 12 : 10;
  const end = start + (wide ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8));
  const header = bytes.toString("latin1", start, end);
  const [, order, kind] = /'descr': '([<|])(\w+)'/.exec(header) ?? [];
  if (!order || /'fortran_order': True/.test(header)) throw new Error(`NPY file: ${header}`);
  const dims = /'shape': \(([^)]*)\)/.exec(header)[1].split(",").filter((d) => d.trim()).map(Number);
  const body = bytes.subarray(end);
  const data = kind === "f2" ? Float32Array.from(typed(body, Uint16Array), half) : typed(body, KINDS[kind]);
  if (data.length !== dims.reduce((n, d) => n * d, 1)) throw new Error(`NPY file of ${data.length} elements: ${header}`);
  return { data, dims };
}

/** The arrays of a `.npz` file by name, stored or deflated. */
export function npz(bytes) {
  const end = bytes.lastIndexOf(Buffer.from([0x50, 0x4b, 5, 6]));
  if (end < 0) throw new Error("no NPZ file");
  const all = new Map();
  let at = bytes.readUInt32LE(end + 16);
  for (let n = bytes.readUInt16LE(end + 10); n > 0; n--) {
    const [method, packed, size] = [bytes.readUInt16LE(at + 10), bytes.readUInt32LE(at + 20), bytes.readUInt32LE(at + 24)];
    const [name, extra, comment] = [28, 30, 32].map((o) => bytes.readUInt16LE(at + o));
    const local = bytes.readUInt32LE(at + 42);
    const data = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    const body = bytes.subarray(data, data + packed);
    if (method !== 0 && method !== 8) throw new Error(`NPZ file with method ${method}`);
    const whole = method ? inflateRawSync(body) : body;
    if (whole.length !== size) throw new Error("NPZ file is damaged");
    all.set(bytes.toString("utf8", at + 46, at + 46 + name).replace(/\.npy$/, ""), () => npy(whole));
    at += 46 + name + extra + comment;
  }
  return (name) => {
    if (!all.has(name)) throw new Error(`no array ${name}`);
    return all.get(name)();
  };
}

/** The fields of a message of protobuf: `[number, value]`, where a value is a bigint or bytes. */
export function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
    }
  };
  const take = (n) => bytes.subarray(at, at += n);
  while (at < bytes.length) {
    const tag = Number(varint());
    const value = [varint, () => take(8), () => take(Number(varint())), , , () => take(4)][tag & 7]();
    yield [tag >> 3, value];
  }
}

// Of ONNX's types: the typed array of the raw data, and the field and its array of data that is not raw.
const ELEMENTS = {
  1: [Float32Array], 2: [Uint8Array], 3: [Int8Array], 4: [Uint16Array], 5: [Int16Array], 6: [Int32Array],
  7: [BigInt64Array], 9: [Uint8Array], 10: [Uint16Array, half], 11: [Float64Array], 12: [Uint32Array],
  13: [BigUint64Array],
};

/** An array of an ONNX TensorProto, `{ data, dims }`. */
export function tensor(bytes) {
  const [dims, numbers] = [[], []];
  let type, raw;
  for (const [field, value] of fields(bytes)) {
    const varints = () => (typeof value === "bigint" ? [value] : [...fields(packed(value))].map(([, v]) => v));
    if (field === 1) dims.push(...varints().map(Number));
    else if (field === 2) type = Number(value);
    else if (field === 9) raw = value;
    else if (field === 4) numbers.push(...typed(value, Float32Array));
    else if (field === 10) numbers.push(...typed(value, Float64Array));
    else if (field === 5 || field === 7 || field === 11) numbers.push(...varints().map((v) => BigInt.asIntN(64, v)));
  }
  const [Kind, convert] = ELEMENTS[type] ?? [];
  if (!Kind) throw new Error(`a tensor of type ${type}`);
  const big = Kind === BigInt64Array || Kind === BigUint64Array;
  let data = raw ? typed(raw, Kind) : Kind.from(numbers, (v) => (big ? BigInt(v) : Number(v)));
  if (convert) data = Float32Array.from(data, convert);
  if (data.length !== dims.reduce((n, d) => n * d, 1)) throw new Error(`a tensor of ${data.length} elements: ${dims}`);
  return { data, dims };
}

/** Packed numbers as a message whose fields they are. */
function packed(bytes) {
  const all = [];
  let start = true;
  for (const byte of bytes) {
    if (start) all.push(8);
    all.push(byte);
    start = byte < 128;
  }
  return Uint8Array.from(all);
}

/** Cases of the `.bin.gz` fixtures, unpacked: names, models, inputs and outputs. */
export function cases(bytes) {
  return [...fields(bytes)].map(([, message]) => {
    const one = { inputs: [], outputs: [] };
    for (const [field, value] of fields(message)) {
      if (field === 1) one.name = value.toString();
      else if (field === 2) one.model = value;
      else if (field === 3) one.inputs.push(tensor(value));
      else if (field === 4) one.outputs.push(tensor(value));
    }
    return one;
  });
}

/**
 * Holds numbers against what they must be: |got - want| ≤ abs + rel |want|. Shapes, where both are known, and lengths
 * must be equal. Numbers that are not finite are refused; with `special` they may be the same on both sides.
 * Returns the largest error.
 */
export function compare(got, want, { abs = 0, rel = 0, special = false }) {
  if (got.dims && want.dims && got.dims.join() !== want.dims.join()) {
    throw new Error(`the shape is [${got.dims}], but must be [${want.dims}]`);
  }
  const [a, b] = [got.data ?? got, want.data ?? want];
  if (a.length !== b.length) throw new Error(`${a.length} numbers came, but must be ${b.length}`);
  if (a.length === 0) throw new Error("there is nothing to compare");
  let worst = 0;
  for (let n = 0; n < a.length; n++) {
    const [g, w] = [Number(a[n]), Number(b[n])];
    if (special && Object.is(g + 0, w + 0)) continue;
    const error = Math.abs(g - w);
    // A NaN is in no bound.
    if (!(error <= abs + rel * Math.abs(w)) || !Number.isFinite(g)) {
      throw new Error(`element ${n} is ${g}, but must be ${w} (bound ${abs} + ${rel} of it)`);
    }
    worst = Math.max(worst, error);
  }
  return worst;
}

/** Numbers in [-1, 1), the same every time. */
export function numbers(count, seed = 1) {
  let state = BigInt(seed);
  return Float32Array.from({ length: count }, () => {
    state = BigInt.asUintN(64, state * 6364136223846793005n + 1442695040888963407n);
    return Number(state >> 40n) / 2 ** 23 - 1;
  });
}
