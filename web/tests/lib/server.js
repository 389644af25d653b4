// A static server: `/dist` and the other folders of `web`, `/models` and `/fixtures` of the repository, and some
// answers that real servers give only on bad days.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL("../..", import.meta.url));
export const repository = join(web, "..");

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".wav": "audio/wav",
  ".png": "image/png",
  ".svg": "image/svg+xml",
};

/** The file of a path, or undefined if there is none that may be seen. */
function place(path) {
  const parts = normalize(decodeURIComponent(path)).split(sep).filter(Boolean);
  if (parts.includes("..")) return undefined;
  const [first, ...rest] = parts;
  if (first === "models") return join(repository, "models", ...rest);
  if (first === "fixtures") return join(repository, "tests/fixtures", ...rest);
  return join(web, ...parts);
}

/**
 * @param isolated whether pages are cross-origin isolated
 * @param wasmType the type that files of WebAssembly have
 * @param missing whether a path is answered as if there were no file
 * @param cors whether pages of other origins may read the files
 * @param host the name under which the server is reached
 */
export async function serve({ isolated = false, wasmType, missing = () => false, cors = false, host = "localhost", port = 0 } = {}) {
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    const headers = { "cache-control": "no-store" };
    if (isolated) {
      headers["cross-origin-opener-policy"] = "same-origin";
      headers["cross-origin-embedder-policy"] = "require-corp";
      headers["cross-origin-resource-policy"] = "same-origin";
    }
    if (cors) headers["access-control-allow-origin"] = "*";
    const [, kind, what] = url.pathname.split("/");
    if (kind === "answer") {
      if (what === "broken") {
        // Less than is stated, and then the end.
        response.writeHead(200, { ...headers, "content-length": "100000" });
        response.write(Buffer.alloc(1000));
        return setTimeout(() => response.destroy(), 50);
      }
      if (what === "slow") {
        response.writeHead(200, { ...headers, "content-length": "100000" });
        response.write(Buffer.alloc(1000));
        return setTimeout(() => response.end(), 20_000).unref();
      }
      response.writeHead(Number(what), headers);
      return response.end(`answer ${what}`);
    }
    try {
      let file = missing(url.pathname) ? undefined : place(url.pathname);
      if (file && (await stat(file)).isDirectory()) file = join(file, "index.html");
      const { size } = await stat(file);
      const type = extname(file) === ".wasm" && wasmType || TYPES[extname(file)] || "application/octet-stream";
      response.writeHead(200, { ...headers, "content-type": type, "content-length": size });
      createReadStream(file).pipe(response);
    } catch {
      response.writeHead(404, headers);
      response.end("not found");
    }
  });
  await new Promise((done, fail) => server.once("error", fail).listen(port, "127.0.0.1", done));
  return {
    url: `http://${host}:${server.address().port}`,
    close: () => {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}
