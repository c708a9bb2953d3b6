/** Runs on the audio thread: gathers what the microphone hears and posts it, some 40 milliseconds at a time. */

class Capture extends AudioWorkletProcessor {
  #samples = new Float32Array(2048);
  #filled = 0;

  process([[channel]]) {
    if (!channel) return true;
    this.#samples.set(channel, this.#filled);
    this.#filled += channel.length;
    if (this.#filled === this.#samples.length) {
      this.port.postMessage(this.#samples);
      this.#filled = 0;
    }
    return true;
  }
}

registerProcessor("capture", Capture);
