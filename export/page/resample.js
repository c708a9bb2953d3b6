/**
 * Resampling of a stream to 16 kHz: a windowed-sinc low-pass, evaluated only where an output sample lies.
 *
 * The same filter and alignment as scipy.signal.resample_poly, with which Python prepares recordings.
 */

import { SAMPLE_RATE } from "./fbank.js";

const ZEROS = 10; // zero crossings of the sinc on each side
const BETA = 5; // of the Kaiser window

function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** Modified Bessel function of the first kind, order 0, by its power series. */
function bessel(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-16 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** Samples at any whole rate in, in pieces of any length, samples at 16 kHz out. */
export class Resampler {
  #up;
  #down;
  #half; // taps on each side of the centre, at `up` times the input's rate
  #taps;
  #samples = new Float32Array(0); // what outputs to come may need
  #start = 0; // position of the first sample kept
  #made = 0; // samples given out

  constructor(rate) {
    const common = greatestCommonDivisor(rate, SAMPLE_RATE);
    this.#up = SAMPLE_RATE / common;
    this.#down = rate / common;
    const slowest = Math.max(this.#up, this.#down);
    this.#half = ZEROS * slowest;
    this.#taps = Float64Array.from({ length: 2 * this.#half + 1 }, (_, i) => {
      const x = (i - this.#half) / slowest;
      const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
      return sinc * bessel(BETA * Math.sqrt(Math.max(1 - (x / ZEROS) ** 2, 0)));
    });
    const gain = this.#up / this.#taps.reduce((sum, tap) => sum + tap, 0);
    this.#taps.forEach((tap, i) => (this.#taps[i] = tap * gain));
  }

  /** The output that needs nothing after these samples. */
  accept(samples) {
    if (this.#up === this.#down) return samples;
    const first = Math.ceil((this.#made * this.#down - this.#half) / this.#up);
    const kept = this.#samples.subarray(Math.max(first - this.#start, 0));
    this.#start += this.#samples.length - kept.length;
    this.#samples = new Float32Array(kept.length + samples.length);
    this.#samples.set(kept);
    this.#samples.set(samples, kept.length);
    const end = this.#start + this.#samples.length;
    return this.#make(Math.floor(((end - 1) * this.#up - this.#half) / this.#down) + 1);
  }

  /** The rest, as if silence followed. */
  finish() {
    if (this.#up === this.#down) return new Float32Array(0);
    return this.#make(Math.ceil(((this.#start + this.#samples.length) * this.#up) / this.#down));
  }

  /** Output samples up to position `until`. */
  #make(until) {
    const output = new Float32Array(Math.max(until - this.#made, 0));
    const end = this.#start + this.#samples.length;
    for (let i = 0; i < output.length; i++) {
      const centre = this.#made++ * this.#down;
      const first = Math.max(Math.ceil((centre - this.#half) / this.#up), this.#start);
      const last = Math.min(Math.floor((centre + this.#half) / this.#up), end - 1);
      let sum = 0;
      for (let k = first; k <= last; k++) {
        sum += this.#samples[k - this.#start] * this.#taps[this.#half + centre - k * this.#up];
      }
      output[i] = sum;
    }
    return output;
  }
}
