// The types of the package as a user meets them. `npm run types` checks this file.

import { devices, load, RecurveError, type Choice, type Outputs, type Reading } from "recurve-web";

const model = await load("model.onnx", {
  device: "auto",
  relaxedSimd: true,
  onProgress: ({ loaded, total }) => console.log(loaded / total),
  signal: AbortSignal.timeout(1000),
  fetch: { credentials: "include" },
});
const outputs: Outputs = await model.run({ x: { data: new Float32Array(6), dims: [1, 2, 3] }, n: { data: [1n] } });
const first: number | bigint | undefined = outputs.y?.data[0];
const choice: Choice | null = model.choice;
const session = await model.session({ batch: 2, states: [["h", "h_out"]] });
await session.setState("h", await session.state("h"));
const readings: Reading[] = await model.readText("大");
for (const { device, name } of await devices()) console.log(device, name, first, choice?.ms.wasm, readings[0]?.label);

try {
  await load(new Blob());
} catch (e) {
  if (e instanceof RecurveError) console.log(e.kind, e.message);
}

// @ts-expect-error a device that there is not
await load("model.onnx", { device: "gpu" });
// @ts-expect-error text is no array
await model.run({ x: { data: "text" } });
// @ts-expect-error the choice is not the caller's to set
model.choice = null;
