// What holds the numbers against the fixtures: the comparison refuses what is wrong, and the readers read.

import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateRawSync } from "node:zlib";
import * as onnx from "../demo/bench/onnx.js";
import { compare, npy, npz, tensor } from "./lib/arrays.js";
import { file } from "./lib/browser.js";

test("the comparison refuses a changed element, NaN, and another length or shape", () => {
  const want = Float32Array.from({ length: 100 }, (_, n) => Math.sin(n));
  const bound = { abs: 1e-4 };
  assert.equal(compare(want.slice(), want, bound), 0);
  for (const place of [0, 50, 99]) {
    for (const [value, words] of [[want[place] + 2e-4, /must be/], [NaN, /NaN/], [Infinity, /Infinity/]]) {
      const got = want.slice();
      got[place] = value;
      assert.throws(() => compare(got, want, bound), words);
      assert.throws(() => compare(got, want, { ...bound, special: true }), words);
    }
  }
  const slightly = want.slice();
  slightly[7] += 5e-5;
  assert.ok(compare(slightly, want, bound) > 4e-5);
  assert.throws(() => compare(want.subarray(1), want, bound), /99 numbers/);
  assert.throws(() => compare([], [], bound), /nothing/);
  assert.throws(() => compare([NaN], [NaN], bound), /NaN/);
  assert.throws(() => compare([1], [NaN], bound), /NaN/);
  assert.throws(() => compare([1], [1.1], { abs: NaN }), /must be/);
  assert.throws(() => compare({ data: want, dims: [10, 10] }, { data: want, dims: [100] }, bound), /shape/);
  assert.equal(compare([NaN, Infinity, 0], [NaN, Infinity, -0], { special: true }), 0);
  assert.throws(() => compare([Infinity], [-Infinity], { special: true }), /Infinity/);
});

/** A NPZ file with one array, stored or deflated. */
function zipped(name, body, method) {
  const data = method ? deflateRawSync(body) : body;
  const local = Buffer.alloc(30);
  local.writeUInt16LE(name.length, 26);
  const central = Buffer.alloc(46);
  central.writeUInt16LE(method, 10);
  central.writeUInt32LE(data.length, 20);
  central.writeUInt32LE(body.length, 24);
  central.writeUInt16LE(name.length, 28);
  const end = Buffer.from([0x50, 0x4b, 5, 6, ...Array(18).fill(0)]);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(30 + name.length + data.length, 16);
  return Buffer.concat([local, Buffer.from(name), data, central, Buffer.from(name), end]);
}

function numpy(descr, shape, body) {
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }\n`;
  const start = Buffer.from([0x93, ...Buffer.from("NUMPY"), 1, 0, header.length & 255, header.length >> 8]);
  return Buffer.concat([start, Buffer.from(header), body]);
}

test("arrays of NumPy are read, stored and deflated", () => {
  const body = numpy("<f4", "(2, 3)", Buffer.from(Float32Array.of(1, 2, 3, 4, 5, 6.5).buffer));
  for (const method of [0, 8]) {
    const { data, dims } = npz(zipped("x.npy", body, method))("x");
    assert.deepEqual([[...data], dims], [[1, 2, 3, 4, 5, 6.5], [2, 3]]);
  }
  const halves = numpy("<f2", "(4,)", Buffer.from(Uint16Array.of(0x3c00, 0xc000, 0x3555, 1).buffer));
  assert.deepEqual([...npy(halves).data], [1, -2, 0.333251953125, 2 ** -24].map(Math.fround));
  assert.throws(() => npy(body.subarray(0, -4)), /5 elements|multiple/);
  assert.throws(() => npz(zipped("x.npy", body, 0))("y"), /no array y/);
  const { data, dims } = npz(file("tests/fixtures/g2pm.npz"))("ids");
  assert.deepEqual([dims, data.length, data.constructor], [[5, 25], 125, Int32Array]);
});

test("tensors of ONNX are read as they are written", () => {
  const floats = tensor(Buffer.from(onnx.tensor("x", [2, 2], Float32Array.of(1, -2, 3, 0.5))));
  assert.deepEqual([[...floats.data], floats.dims], [[1, -2, 3, 0.5], [2, 2]]);
  assert.deepEqual([...tensor(Buffer.from(onnx.tensor("x", [1], BigInt64Array.of(-3n)))).data], [-3n]);
  // Without raw data: int64_data, packed and not.
  assert.deepEqual([...tensor(Buffer.from([8, 2, 16, 7, 58, 3, 1, 0xac, 2])).data], [1n, 300n]);
  assert.deepEqual([...tensor(Buffer.from([8, 2, 16, 7, 56, 1, 56, 2])).data], [1n, 2n]);
});
