/** The exported model as functions, run by ONNX Runtime's WebAssembly build: all of it from this folder. */

import * as ort from "./ort.wasm.bundle.min.mjs";

const KINDS = { float32: Float32Array, int64: BigInt64Array };

async function bytesOf(file) {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file} is missing from this folder: export it again with todm export --to web`);
  return new Uint8Array(await answer.arrayBuffer());
}

/** Servers that know .gz send it as compressed transport, and it arrives unpacked; plain ones do not. */
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** model.json: the signature of every method and the files of every precision. */
export async function readModel() {
  return JSON.parse(new TextDecoder().decode(await bytesOf("model.json")));
}

/** The table of symbols: lines of "symbol id". */
export async function readTokens() {
  const lines = new TextDecoder().decode(await bytesOf("tokens.txt")).trimEnd().split("\n");
  return lines.map((line) => line.slice(0, line.lastIndexOf(" ")));
}

/** Fetch and start the runtime itself. One thread: more need headers that a plain file server does not send. */
export async function startRuntime() {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unpacked(await bytesOf("ort-wasm-simd-threaded.wasm.gz"));
  return ort.env.versions.web;
}

/** The methods of a model by name: typed arrays in, in the order of its signature, the outputs' typed arrays out. */
export async function loadMethods(model, precision) {
  const methods = {};
  for (const { name, inputs, outputs } of model.program.methods) {
    const options = { executionProviders: ["wasm"] };
    const session = await ort.InferenceSession.create(await bytesOf(model.files[precision][name].file), options);
    methods[name] = async (...values) => {
      const feeds = inputs.map(({ name, dtype, shape }, i) => [name, new ort.Tensor(dtype, values[i], shape)]);
      const results = await session.run(Object.fromEntries(feeds));
      return outputs.map((output) => results[output].data);
    };
  }
  return methods;
}

/** A typed array of zeros for an input of a signature. */
export function zeros({ dtype, shape }) {
  return new KINDS[dtype](shape.reduce((product, size) => product * size, 1));
}
