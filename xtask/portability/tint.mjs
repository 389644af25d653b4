// Compiles every WGSL sample with Tint, the compiler of Chromium, uniformity analysis included, on Dawn's null
// adapter, which needs no GPU.
// node tint.mjs FOLDER_OF_NODE_MODULES FOLDER_OF_SAMPLES
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, samples] = process.argv.slice(2);
const { create, globals } = await import(pathToFileURL(join(resolve(modules), 'webgpu/index.js')));
Object.assign(globalThis, globals);
const gpu = create(['backend=null']);
const files = readdirSync(samples).filter((f) => f.endsWith('.wgsl')).sort();
if (files.length === 0) throw new Error(`no .wgsl in ${samples}`);

// Each sample runs on a device that only has the features the sample enables, so that a sample fails if it uses an
// extension without enabling it.
const devices = new Map();
async function deviceFor(source) {
  const features = [];
  if (source.includes('enable f16;')) features.push('shader-f16');
  if (source.includes('enable subgroups;')) features.push('subgroups');
  const key = features.join();
  if (!devices.has(key)) {
    // An adapter creates only one device.
    const adapter = await gpu.requestAdapter();
    devices.set(key, await adapter.requestDevice({ requiredFeatures: features }));
  }
  return devices.get(key);
}

// The first error, if there is one.
async function compile(source) {
  const device = await deviceFor(source);
  device.pushErrorScope('validation');
  const { messages } = await device.createShaderModule({ code: source }).getCompilationInfo();
  const error = await device.popErrorScope();
  const said = messages.find((m) => m.type === 'error');
  return said ? `${said.lineNum}: ${said.message}` : error?.message;
}

// Must be refused; otherwise the check would not detect errors.
const wrong = {
  'a barrier that not all lanes reach': `@compute @workgroup_size(8)
    fn main(@builtin(local_invocation_index) i: u32) { if (i < 4u) { workgroupBarrier(); } }`,
  'subgroups without their extension': `@group(0) @binding(0) var<storage, read_write> o: array<f32>;
    @compute @workgroup_size(8) fn main() { o[0] = subgroupAdd(1.0); }`,
};
let failed = 0;
for (const [what, source] of Object.entries(wrong)) {
  if (!(await compile(source))) {
    failed += 1;
    console.log(`${what} was not refused`);
  }
}

let slowest = [0, ''];
for (const file of files) {
  const begin = performance.now();
  const error = await compile(readFileSync(join(samples, file), 'utf8'));
  if (error) {
    failed += 1;
    console.log(`${file}: ${error}`);
  }
  const took = performance.now() - begin;
  if (took > slowest[0]) slowest = [took, file];
}
const time = `slowest ${slowest[1]} in ${slowest[0].toFixed(0)} ms`;
console.log(`Tint: ${files.length} samples, ${failed} failures, ${time}`);
process.exit(failed > 0 ? 1 : 0);
