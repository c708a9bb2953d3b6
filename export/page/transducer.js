/** Greedy decoding of a streaming transducer: the JavaScript twin of `StreamRecogniser` in todm/speech/decode.py. */

import { BINS, FLOOR, SAMPLE_RATE, StreamingFbank } from "./fbank.js";
import { zeros } from "./runtime.js";

const BLANK = 0;
const CONTEXT = 2; // symbols that the predictor sees
const START = [-1, BLANK]; // what it sees before the first symbol
const TAIL = new Float32Array(SAMPLE_RATE / 2); // silence for a causal model to finish the last word in
const SPACE = "▁";

function largest(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** Audio in, in pieces of any length, words out. */
export class Recogniser {
  #methods;
  #tokens;
  #encoder; // the signature of encode_chunk
  #frames; // feature frames of a chunk
  #bank;
  #states;
  #symbols;
  #predicted; // the predictor's vector after the last symbols

  /** `chunks` gathers the milliseconds that each whole chunk took: features, encoder and search. */
  constructor(model, methods, tokens) {
    this.#methods = methods;
    this.#tokens = tokens;
    this.#encoder = model.program.methods.find(({ name }) => name === "encode_chunk");
    this.#frames = this.#encoder.inputs[0].shape[1];
  }

  /** Forget everything heard: the next samples begin an utterance. */
  async reset() {
    this.chunks = [];
    this.#bank = new StreamingFbank();
    this.#states = this.#encoder.inputs.slice(1).map(zeros);
    this.#symbols = [];
    await this.#predict();
  }

  /** Hear 16 kHz samples in [-1, 1], and decode every chunk that they complete. */
  async accept(samples) {
    this.#bank.accept(samples);
    await this.#decode();
  }

  /** End the utterance with half a second of silence, and more for what is left of a chunk. */
  async finish() {
    this.#bank.accept(TAIL);
    this.#bank.finish();
    await this.#decode();
    const left = this.#bank.ready;
    if (left === 0) return;
    const chunk = new Float32Array(this.#frames * BINS).fill(Math.log(FLOOR));
    chunk.set(this.#bank.pop(left));
    await this.#hear(chunk);
  }

  /** The words recognised so far. */
  get text() {
    const symbols = this.#symbols.map((symbol) => this.#tokens[symbol]);
    return symbols.join("").replaceAll(SPACE, " ").trim().replace(/ +/g, " ");
  }

  async #decode() {
    while (this.#bank.ready >= this.#frames) {
      const begin = performance.now();
      await this.#hear(this.#bank.pop(this.#frames));
      this.chunks.push(performance.now() - begin);
    }
  }

  async #hear(chunk) {
    const [encoded, ...states] = await this.#methods.encode_chunk(chunk, ...this.#states);
    this.#states = states;
    const size = this.#predicted.length;
    for (let at = 0; at < encoded.length; at += size) await this.#advance(encoded.slice(at, at + size));
  }

  /** Take the next encoder vector: at most one symbol comes of it. */
  async #advance(vector) {
    const [logits] = await this.#methods.join(vector, this.#predicted);
    const symbol = largest(logits);
    if (symbol === BLANK) return;
    this.#symbols.push(symbol);
    await this.#predict();
  }

  async #predict() {
    const context = [...START, ...this.#symbols.slice(-CONTEXT)].slice(-CONTEXT);
    [this.#predicted] = await this.#methods.predict(BigInt64Array.from(context, BigInt));
  }
}
