// The server of the comparison: this folder, its node_modules, the package, the repository's models, and files made in
// memory. Pages are cross-origin isolated, which gives them threads and a clock of 5 µs.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/**
 * @param roots folders by the beginning of the address, the longest first
 * @param made bytes by address
 */
export async function serve(roots, made) {
  const fetched = new Set();
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
    response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    response.setHeader("Cross-Origin-Resource-Policy", "same-origin");
    response.setHeader("Cache-Control", "max-age=600");
    response.setHeader("Content-Type", TYPES[extname(path)] ?? "application/octet-stream");
    if (made[path]) {
      fetched.add(path);
      response.setHeader("Content-Length", made[path].length);
      return response.end(made[path]);
    }
    const file = fileOf(path);
    const found = file && (await stat(file).catch(() => null));
    if (!found?.isFile()) {
      response.statusCode = 404;
      return response.end();
    }
    fetched.add(path);
    response.setHeader("Content-Length", found.size);
    createReadStream(file).pipe(response);
  });
  function fileOf(path) {
    const beginning = Object.keys(roots).find((r) => path.startsWith(r));
    if (beginning === undefined) return null;
    const file = normalize(join(roots[beginning], path.slice(beginning.length)));
    return file.startsWith(normalize(roots[beginning] + sep)) ? file : null;
  }
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    /** The addresses that were answered since the last call, and the file of each. */
    taken() {
      const files = [...fetched].map((path) => [path, made[path] ? null : fileOf(path)]);
      fetched.clear();
      return files;
    },
    close: () => server.close(),
  };
}
