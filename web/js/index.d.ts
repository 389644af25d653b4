/** Where a model runs: on the GPU through WebGPU, or on the processor through WebAssembly. */
export type DeviceName = "webgpu" | "wasm";

/** Element types of a model's inputs and outputs. */
export type ElementType =
  | "float32" | "float64" | "float16" | "bfloat16"
  | "int8" | "int16" | "int32" | "int64"
  | "uint8" | "uint16" | "uint32" | "uint64" | "bool";

/** Elements of an array. What a model takes as floats is given as floats, whole numbers as integers of any width. */
export type ArrayData =
  | Float32Array | Float64Array
  | Int8Array | Int16Array | Int32Array | BigInt64Array
  | Uint8Array | Uint8ClampedArray | Uint16Array | Uint32Array | BigUint64Array
  | readonly (number | bigint)[];

/** An array given to a model. */
export interface NamedArray {
  /** The elements, row by row (the last dimension varies fastest). */
  data: ArrayData;
  /** The sizes, as `[B, T, I]`. Without them the array has one dimension. `[]` is a single number. */
  dims?: readonly number[];
}

/** Inputs by name. */
export type Inputs = Record<string, NamedArray>;

/** An array that a model gives. */
export interface OutputArray {
  data: Float32Array | Int8Array | Int16Array | Int32Array | BigInt64Array
    | Uint8Array | Uint16Array | Uint32Array | BigUint64Array;
  dims: number[];
  type: ElementType;
}

/** Outputs by name. */
export type Outputs = Record<string, OutputArray>;

/** An input or output of a model. */
export interface ValueInfo {
  name: string;
  type: ElementType;
  /** A number, the name of an open size, or null for a size that is open and has no name; null as a whole if the file
   * does not state the number of dimensions. */
  dims: (number | string | null)[] | null;
}

/** How `device: "auto"` chose. */
export interface Choice {
  device: DeviceName;
  /** Milliseconds of a call on each device that was measured. */
  ms: { wasm?: number; webgpu?: number };
  /** The choice in a sentence. */
  reason: string;
}

export interface LoadOptions {
  /** "auto" (the default) measures the first call on both devices and keeps the faster one. */
  device?: "auto" | DeviceName;
  /**
   * Threads for one call on WebAssembly; 1 unless given. "auto" takes as many as there are cores, but at most 4, where
   * several are possible, and else one. A number above 1 needs `device: "wasm"`, and is refused where it is impossible.
   * Several are possible where the page is cross-origin isolated, the browser has relaxed SIMD, and the model does not
   * run on the page's own thread.
   */
  threads?: "auto" | number;
  /** Called while a file is fetched; `total` is 0 if the server does not state the size. */
  onProgress?: (progress: { loaded: number; total: number }) => void;
  /** Stops fetching; the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
  /** Options for `fetch`, such as `credentials` or `headers`. */
  fetch?: RequestInit;
  /**
   * Whether the model runs in the package's worker, so that its calls never block this thread. The default is true on a
   * page and false within a worker.
   */
  worker?: boolean;
  /**
   * Whether WebAssembly may use relaxed SIMD where the browser has it, which is the default. It is faster, but one
   * processor's results can differ from another's in their last bits; with false they do not.
   */
  relaxedSimd?: boolean;
}

export interface SessionOptions {
  /** The number of sequences that go through the session together; 1 unless given. */
  batch?: number;
  /** For an ONNX file whose states are not found by name: pairs of an input and the output that follows it. */
  states?: readonly (readonly [input: string, output: string])[];
}

/** A character of a text that can be read in several ways, and how the model reads it. */
export interface Reading {
  /** The place of the character, counted in characters (code points), from 0. */
  index: number;
  character: string;
  label: string;
}

/**
 * Loads a model: an ONNX file, a Keras file (`.keras`, HDF5), or Recurve's own (safetensors).
 * @param source an address, the bytes of a file, a `Blob` or `File`, or a `Response`.
 */
export function load(
  source: string | URL | ArrayBuffer | Uint8Array | Blob | Response,
  options?: LoadOptions,
): Promise<Model>;

/** A loaded model. Calls may overlap; they run one after the other. */
export interface Model {
  readonly name: string;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /** What a user should know of how the file was read. */
  readonly notes: readonly string[];
  /** "auto" until the first call has been measured, unless there is no WebGPU. */
  readonly device: "auto" | DeviceName;
  /** The name of the GPU or of the processor's vector instructions. */
  readonly deviceName: string;
  /** The threads that a call uses; on WebGPU 1. */
  readonly threads: number;
  /** How "auto" chose; null before that, and for a device that was asked for by name. */
  readonly choice: Choice | null;
  /** The layers or nodes with shapes and numbers of parameters, as text. */
  summary(): string;
  /** Runs the model. All outputs come back, by name. */
  run(inputs: Inputs): Promise<Outputs>;
  /** Calls one after the other, whose states stay on the device. */
  session(options?: SessionOptions): Promise<Session>;
  /** Reads a text with a model that has a vocabulary: the labels of its ambiguous characters. */
  readText(text: string): Promise<Reading[]>;
  /** Frees the model and its sessions when the calls before it have ended. Calls that come later are rejected. */
  dispose(): Promise<void>;
}

/** Calls of one model, one after the other. States begin as zeros. */
export interface Session {
  /** The names of the states; those of a network of layers are known after the first call. */
  states(): Promise<string[]>;
  /** One call: the inputs that are no states; the outputs that are no states. If it fails, the states stay. */
  run(inputs: Inputs): Promise<Outputs>;
  /** A state as it is now. */
  state(name: string): Promise<OutputArray>;
  /** Puts an array in the place of a state of an ONNX file. */
  setState(name: string, array: NamedArray): Promise<void>;
  /** Makes every state zero again. */
  reset(): Promise<void>;
  /** Frees the states. */
  dispose(): Promise<void>;
}

export interface DeviceInfo {
  device: DeviceName;
  name: string;
  /** The threads that `threads: "auto"` takes; on WebGPU 1. */
  threads: number;
}

/** The devices of this browser. WebAssembly is always among them. */
export function devices(): Promise<DeviceInfo[]>;

/** Every error of Recurve. */
export class RecurveError extends Error {
  constructor(kind: string, message: string, options?: { cause?: unknown });
  /**
   * What kind of error it is: "Argument" (options), "Input" (arrays and their names), "OnnxFile", "KerasFile", "File",
   * "Fetch", "NoDevice", "DeviceLost", "Gpu", "OutOfMemory", "Unsupported", "Disposed", "Worker" (it cannot be started,
   * or has ended), "Internal" (a fault of Recurve; its module has been given up).
   */
  readonly kind: string;
}
