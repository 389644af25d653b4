// A worker that is a thread of a module of WebAssembly: an instance of it that shares the engine's memory.

addEventListener("message", async ({ data: { address, module, memory } }) => {
  let js;
  try {
    js = await import(/* @vite-ignore */ /* webpackIgnore: true */ address);
    await js.default({ module_or_path: module, memory });
  } catch (e) {
    return postMessage({ error: `${e}` });
  }
  postMessage({});
  try {
    js.work();
  } catch {
    // The call that waits for this thread tells why.
    js.give_up();
  }
}, { once: true });
