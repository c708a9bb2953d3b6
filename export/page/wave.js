/** The sound as bars, newest at the right. */

const STEP = 0.02; // seconds a bar
const WIDTH = 4; // pixels a bar, gap included

export class Wave {
  #canvas;
  #peaks = [];

  constructor(canvas) {
    this.#canvas = canvas;
    this.clear();
  }

  clear() {
    this.#peaks = [];
    this.#draw();
  }

  /** Show samples that were heard. */
  add(samples, rate) {
    const size = Math.round(STEP * rate);
    for (let at = 0; at < samples.length; at += size) {
      const part = samples.subarray(at, at + size);
      this.#peaks.push(part.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0));
    }
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = window.devicePixelRatio;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    const context = this.#canvas.getContext("2d");
    context.scale(scale, scale);
    context.fillStyle = getComputedStyle(this.#canvas).color;
    const count = Math.floor(width / WIDTH);
    this.#peaks = this.#peaks.slice(-count);
    for (let i = 0; i < count; i++) {
      const peak = this.#peaks[i - count + this.#peaks.length] ?? 0;
      const size = Math.max(Math.sqrt(peak) * height, 2); // quiet sounds are seen as well
      context.globalAlpha = peak > 0 ? 1 : 0.25;
      context.fillRect(i * WIDTH, (height - size) / 2, WIDTH - 1.5, size);
    }
  }
}
