/**
 * Log-mel filter banks of a stream: Kaldi's, as kaldi-native-fbank computes them and todm/speech/features.py sets them.
 *
 * 16 kHz samples in [-1, 1]; 25 ms Povey windows every 10 ms, centred, with mirrored edges (`snip_edges` off); mean
 * removed, pre-emphasis 0.97, power spectrum, 80 triangular mel bins from 20 to 7600 Hz, natural logarithm.
 */

export const SAMPLE_RATE = 16000;
export const BINS = 80;
export const FLOOR = 2 ** -23; // float32's epsilon, below which Kaldi takes no logarithm

const LENGTH = 400; // samples of a window
const SHIFT = 160; // samples between windows
const BEFORE = LENGTH / 2 - SHIFT / 2; // samples of the first window that lie before the signal
const FFT = 512;
const LOW = 20; // Hz
const HIGH = 7600; // Hz
const PREEMPHASIS = 0.97;

const WINDOW = Float64Array.from({ length: LENGTH }, (_, i) =>
  Math.pow(0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (LENGTH - 1)), 0.85),
);

const COSINES = Float64Array.from({ length: FFT / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / FFT));
const SINES = Float64Array.from({ length: FFT / 2 }, (_, k) => Math.sin((2 * Math.PI * k) / FFT));
const REVERSED = Uint16Array.from({ length: FFT }, (_, i) => {
  let reversed = 0;
  for (let bit = 1; bit < FFT; bit *= 2) reversed = reversed * 2 + ((i & bit) > 0);
  return reversed;
});

/** Each mel bin as its first spectral line and the weights from there on. */
const FILTERS = (() => {
  const mel = (hertz) => 1127 * Math.log(1 + hertz / 700);
  const step = (mel(HIGH) - mel(LOW)) / (BINS + 1);
  return Array.from({ length: BINS }, (_, bin) => {
    const left = mel(LOW) + bin * step;
    const weights = [];
    let first = 0;
    for (let line = 0; line < FFT / 2; line++) {
      const height = 1 - Math.abs(mel((line * SAMPLE_RATE) / FFT) - left - step) / step;
      if (height <= 0) continue;
      if (weights.length === 0) first = line;
      weights.push(height);
    }
    return { first, weights: Float64Array.from(weights) };
  });
})();

/** Discrete Fourier transform in place, by decimation in time (Cooley and Tukey 1965). */
function transform(real, imaginary) {
  for (let i = 0; i < FFT; i++) {
    const j = REVERSED[i];
    if (j > i) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let half = 1; half < FFT; half *= 2) {
    const stride = FFT / (2 * half);
    for (let start = 0; start < FFT; start += 2 * half) {
      for (let k = 0; k < half; k++) {
        const even = start + k;
        const odd = even + half;
        const cosine = COSINES[k * stride];
        const sine = SINES[k * stride];
        const re = real[odd] * cosine + imaginary[odd] * sine;
        const im = imaginary[odd] * cosine - real[odd] * sine;
        real[odd] = real[even] - re;
        imaginary[odd] = imaginary[even] - im;
        real[even] += re;
        imaginary[even] += im;
      }
    }
  }
}

/** Features of a signal that arrives in pieces of any length. */
export class StreamingFbank {
  #samples = new Float32Array(4 * SAMPLE_RATE); // what a frame may still need
  #start = 0; // position in the signal of the first sample kept
  #end = 0; // samples heard
  #finished = false;
  #popped = 0;
  #real = new Float64Array(FFT);
  #imaginary = new Float64Array(FFT);

  /** Append samples. */
  accept(samples) {
    const kept = this.#end - this.#start;
    const needed = Math.min(Math.max(this.#popped * SHIFT - BEFORE - this.#start, 0), kept);
    const size = kept - needed + samples.length;
    const room = size > this.#samples.length ? new Float32Array(2 * size) : this.#samples;
    room.set(this.#samples.subarray(needed, kept));
    room.set(samples, kept - needed);
    this.#samples = room;
    this.#start += needed;
    this.#end += samples.length;
  }

  /** There is no more signal: the frames that reach over its end become ready. */
  finish() {
    this.#finished = true;
  }

  /** Number of frames that can be popped. */
  get ready() {
    const reach = this.#finished ? SHIFT / 2 : BEFORE - LENGTH + SHIFT;
    return Math.max(Math.floor((this.#end + reach) / SHIFT) - this.#popped, 0);
  }

  /** Remove the oldest `count` <= `ready` frames: count x 80 numbers, frame after frame. */
  pop(count) {
    const frames = new Float32Array(count * BINS);
    for (let i = 0; i < count; i++) this.#frame(this.#popped++, frames.subarray(i * BINS, (i + 1) * BINS));
    return frames;
  }

  #frame(index, bins) {
    const real = this.#real;
    const imaginary = this.#imaginary;
    let mean = 0;
    for (let i = 0; i < LENGTH; i++) {
      real[i] = this.#sample(index * SHIFT - BEFORE + i);
      mean += real[i] / LENGTH;
    }
    for (let i = LENGTH - 1; i >= 0; i--) {
      const previous = real[Math.max(i - 1, 0)];
      real[i] = (real[i] - mean - PREEMPHASIS * (previous - mean)) * WINDOW[i];
    }
    real.fill(0, LENGTH);
    imaginary.fill(0);
    transform(real, imaginary);
    FILTERS.forEach(({ first, weights }, bin) => {
      let energy = 0;
      for (let i = 0; i < weights.length; i++) {
        const line = first + i;
        energy += weights[i] * (real[line] ** 2 + imaginary[line] ** 2);
      }
      bins[bin] = Math.log(Math.max(energy, FLOOR));
    });
  }

  /** The sample at a position; outside the signal its mirror image. */
  #sample(position) {
    while (position < 0 || position >= this.#end) position = (position < 0 ? 0 : 2 * this.#end) - 1 - position;
    return this.#samples[position - this.#start];
  }
}
