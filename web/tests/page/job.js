// Jobs for the package, in a page or a worker. Described in `lib/browser.js`.

function bytes(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

function unpacked({ kind, base64, dims }) {
  return { data: new globalThis[kind](bytes(base64).buffer), dims };
}

function packed({ data, dims, type }) {
  const all = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  let text = "";
  for (let n = 0; n < all.length; n += 8192) text += String.fromCharCode(...all.subarray(n, n + 8192));
  return { kind: data.constructor.name, base64: btoa(text), dims, type };
}

const each = (object, f) => Object.fromEntries(Object.entries(object).map(([k, v]) => [k, f(v)]));
const plain = (e) => ({ name: e.name, kind: e.kind, message: e.message, own: e.constructor.name });

export async function perform(recurve, { source, options, steps }) {
  const { mayFail, ...rest } = options ?? {};
  let model;
  try {
    model = await recurve.load(source.base64 === undefined ? source : bytes(source.base64), rest);
  } catch (e) {
    return { error: plain(e) };
  }
  // Arrays without names are those of the model's inputs, in order.
  const named = (inputs) => (Array.isArray(inputs)
    ? Object.fromEntries(inputs.map((a, n) => [model.inputs[n].name, unpacked(a)]))
    : each(inputs, unpacked));
  const results = [];
  let session;
  for (const [op, arg] of steps) {
    try {
      if (op === "run") results.push({ outputs: each(await model.run(named(arg)), packed) });
      else if (op === "step") results.push({ outputs: each(await session.run(named(arg)), packed) });
      else if (op === "session") {
        session = await model.session(arg);
        results.push({ states: await session.states() });
      } else if (op === "reset") results.push({ reset: await session.reset() ?? true });
      else if (op === "text") results.push({ readings: await model.readText(arg) });
      else if (op === "state") results.push({ array: packed(await session.state(arg)) });
      else if (op === "setState") results.push({ set: await session.setState(arg[0], unpacked(arg[1])) ?? true });
      else throw new Error(`no step ${op}`);
    } catch (e) {
      results.push({ error: plain(e) });
    }
  }
  const { name, inputs, outputs, notes, device, deviceName, threads, choice } = model;
  const about = { name, inputs, outputs, notes, device, deviceName, threads, choice, summary: model.summary() };
  await session?.dispose();
  await model.dispose();
  return { results, about };
}
