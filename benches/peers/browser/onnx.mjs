// The recurrent layers of the comparison as ONNX files.

import { FLOAT, model, tensor } from "../../../web/demo/bench/onnx.js";
import { LAYERS, weights } from "./models.mjs";

/** The bytes of an ONNX file: x [T, batch, I] to y [T, 1, batch, H]. The batch is open unless it is given. */
export function onnx(kind, batch = "batch") {
  const { op, gates, T, I, H } = LAYERS[kind];
  const { w, r, b } = weights(kind);
  const attributes = { hidden_size: H, ...(kind === "gru" ? { linear_before_reset: 1 } : {}) };
  return model({
    name: kind,
    nodes: [{ op, name: kind, inputs: ["x", "w", "r", "b"], outputs: ["y"], attributes }],
    weights: [
      tensor("w", [1, gates * H, I], w),
      tensor("r", [1, gates * H, H], r),
      tensor("b", [1, 2 * gates * H], b),
    ],
    inputs: [["x", FLOAT, [T, batch, I]]],
    outputs: [["y", FLOAT, [T, 1, batch, H]]],
  });
}
