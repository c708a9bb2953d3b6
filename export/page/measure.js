/** The benchmark: the JavaScript twin of todm/export/runner.py's, for any program with a signature. */

import { zeros } from "./runtime.js";

const WARM_UP = 20; // cycles at least
const SETTLE = 1000; // milliseconds at least: the browser compiles what is hot once more, beside the first cycles

/** Standard normal numbers by Box and Muller (1958), uniform ones by Park and Miller (1988): the same every time. */
function noise(length) {
  let seed = 1;
  const uniform = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  return Float32Array.from({ length }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

function examples({ inputs, states }) {
  const carried = new Set(Object.values(states));
  return inputs.map((input) => {
    const empty = zeros(input);
    return input.dtype === "float32" && !carried.has(input.name) ? noise(empty.length) : empty;
  });
}

/**
 * A function that runs one cycle: a call of the main method with its states carried, and of each other method as many
 * calls as ordinary use makes.
 */
function cycleOf(methods, program) {
  const [main, ...others] = program.methods;
  const names = main.inputs.map(({ name }) => name);
  const feeds = Object.entries(main.states).map(([out, into]) => [main.outputs.indexOf(out), names.indexOf(into)]);
  const inputs = examples(main);
  const rest = others.map((other) => ({ ...other, values: examples(other), due: 0 }));
  return async () => {
    const outputs = await methods[main.name](...inputs);
    for (const [out, into] of feeds) inputs[into] = outputs[out];
    for (const other of rest) {
      for (other.due += other.calls; other.due >= 1; other.due--) await methods[other.name](...other.values);
    }
  };
}

/** Milliseconds of each of `cycles` cycles, one right after the other. Warm-up cycles come first, not counted. */
export async function measure(methods, program, cycles) {
  const cycle = cycleOf(methods, program);
  const start = performance.now();
  for (let i = 0; i < WARM_UP || performance.now() - start < SETTLE; i++) await cycle();
  const times = [];
  for (let i = 0; i < cycles; i++) {
    const begin = performance.now();
    await cycle();
    times.push(performance.now() - begin);
  }
  return times;
}

/**
 * Milliseconds from the moment each chunk of a live signal is complete to the end of its cycle. Between chunks it
 * sleeps, as a recogniser does. A chunk that is missed lets the next one start late, and that counts.
 */
export async function pace(methods, program, cycles) {
  const cycle = cycleOf(methods, program);
  await cycle();
  const begin = performance.now();
  const times = [];
  for (let i = 1; i <= cycles; i++) {
    const due = begin + i * 1000 * program.seconds;
    await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
    await cycle();
    times.push(performance.now() - due);
  }
  return times;
}

/** The value below which a share of the numbers lies, between neighbours linearly, as NumPy has it. */
export function quantile(numbers, share) {
  const sorted = Float64Array.from(numbers).sort();
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  return sorted[below] + (at - below) * (sorted[Math.ceil(at)] - sorted[below]);
}
