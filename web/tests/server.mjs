// `node web/tests/server.mjs [--isolated]`: serves the demo page at the address that it prints. PORT sets the port.

import { serve } from "./lib/server.js";

const { url } = await serve({ port: Number(process.env.PORT ?? 8080), isolated: process.argv.includes("--isolated") });
console.log(`${url}/demo/`);
