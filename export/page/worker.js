/**
 * The thread in which everything is computed, so that the page never waits.
 *
 * Each request is { id, verb, ... } and is answered by { id, value } or { id, error }; requests are served in the
 * order they come.
 */

import { measure, pace } from "./measure.js";
import { Resampler } from "./resample.js";
import { loadMethods, readModel, readTokens, startRuntime } from "./runtime.js";
import { Recogniser } from "./transducer.js";

let model;
let tokens;
let methods;
let recogniser;
let resampler;

function progress() {
  return { text: recogniser.text, chunks: recogniser.chunks.splice(0) };
}

const verbs = {
  /** Start the runtime; the model's signature, its symbols and the runtime's version. */
  async start() {
    model = await readModel();
    tokens = await readTokens();
    return { model, tokens, version: await startRuntime() };
  },
  /** Load the files of a precision; the milliseconds that took. */
  async load({ precision }) {
    const begin = performance.now();
    methods = await loadMethods(model, precision);
    const took = performance.now() - begin;
    recogniser = new Recogniser(model, methods, tokens);
    await recogniser.reset();
    return took;
  },
  /** Begin an utterance of samples at `rate`. */
  async begin({ rate }) {
    resampler = new Resampler(rate);
    await recogniser.reset();
  },
  /** Hear samples. */
  async accept({ samples }) {
    await recogniser.accept(resampler.accept(samples));
    return progress();
  },
  /** End the utterance. */
  async finish() {
    await recogniser.accept(resampler.finish());
    await recogniser.finish();
    return progress();
  },
  /** Milliseconds of each cycle of the benchmark. */
  async measure({ cycles }) {
    return measure(methods, model.program, cycles);
  },
  /** The same at the pace of a live signal. */
  async pace({ cycles }) {
    return pace(methods, model.program, cycles);
  },
};

let last = Promise.resolve();
self.onmessage = ({ data: { id, verb, ...rest } }) => {
  last = last
    .then(() => verbs[verb](rest))
    .then((value) => self.postMessage({ id, value }))
    .catch((error) => self.postMessage({ id, error: error.message }));
};
