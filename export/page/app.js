/** The page: buttons, words and numbers. Sound goes to the worker, words come back. */

import { decode, openMicrophone } from "./audio.js";
import { Engine } from "./engine.js";
import { quantile } from "./measure.js";
import { Wave } from "./wave.js";

const PIECE = 0.1; // seconds of a recording handed over at a time
const CYCLES = 200; // of the benchmark
const MOST_SYMBOLS = 40; // that a vocabulary is listed with

const find = (selector) => document.querySelector(selector);
const engine = new Engine();
const wave = new Wave(find("#wave"));
let model;
let listening = false; // to the microphone
let chunks = []; // milliseconds of every chunk of this utterance

function say(text, failed = false) {
  find("#status").textContent = text;
  find("#status").classList.toggle("error", failed);
}

/** Run an action of the user; what goes wrong is said on the page. Nothing else can be started meanwhile. */
async function act(action) {
  enable(false);
  try {
    return await action();
  } catch (error) {
    say(error.message, true);
    throw error;
  } finally {
    document.body.classList.remove("working", "listening");
    enable(true);
  }
}

const quietly = (action) => () => act(action).catch(() => {});

function enable(free) {
  for (const element of document.querySelectorAll("#microphone, #file input, #precision, #measure")) {
    element.disabled = !free;
  }
}

// -- numbers ------------------------------------------------------------------------------------------------

const milliseconds = (value) => `${value.toFixed(value < 10 ? 2 : 0)} ms`;

function summary(times) {
  const deadline = 1000 * model.program.seconds;
  const total = times.reduce((sum, time) => sum + time, 0);
  return {
    p50: quantile(times, 0.5),
    p90: quantile(times, 0.9),
    rtf: total / (deadline * times.length),
    late: times.filter((time) => time > deadline).length,
  };
}

function show(row, times) {
  const { p50, p90, rtf, late } = summary(times);
  const texts = { p50: milliseconds(p50), p90: milliseconds(p90), rtf: rtf.toPrecision(2), late: `${late}` };
  for (const [key, text] of Object.entries(texts)) find(`${row} [data-key=${key}]`).textContent = text;
  find(`${row} small`).textContent = `${times.length} chunks`;
}

function fact(key, text) {
  find(`#facts [data-key=${key}]`).textContent = text;
}

// -- recognising ----------------------------------------------------------------------------------------------

function hear({ text, chunks: times }) {
  chunks.push(...times);
  find("#words").textContent = text;
  find("#words").scrollTop = find("#words").scrollHeight;
  if (chunks.length > 0) show("#live", chunks);
}

async function begin(rate) {
  chunks = [];
  wave.clear();
  find("#words").textContent = "";
  await engine.ask("begin", { rate });
}

async function accept(samples, rate) {
  wave.add(samples, rate);
  hear(await engine.ask("accept", { samples }));
}

/** The words of an audio file, and what they cost: { text, seconds, p50, p90, rtf, late }, times in milliseconds. */
async function transcribe(buffer) {
  document.body.classList.add("working");
  const { samples, rate } = await decode(buffer);
  await begin(rate);
  const size = Math.round(PIECE * rate);
  for (let at = 0; at < samples.length; at += size) await accept(samples.subarray(at, at + size), rate);
  hear(await engine.ask("finish"));
  const seconds = samples.length / rate;
  const result = { text: find("#words").textContent, seconds, ...summary(chunks) };
  say(`${seconds.toFixed(1)} seconds of audio in ${(result.rtf * seconds).toFixed(2)} seconds.`);
  return result;
}

async function open(file) {
  const player = find("audio");
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(file);
  player.hidden = false;
  await transcribe(await file.arrayBuffer());
}

/** Listen until the button is pressed again. */
async function listen() {
  const pieces = [];
  const microphone = await openMicrophone((samples) => listening && pieces.push(samples));
  listening = true;
  try {
    await begin(microphone.rate);
    document.body.classList.add("listening");
    say("Listening. Press again to stop.");
    find("audio").hidden = true;
    find("#microphone span").textContent = "Stop";
    find("#microphone").disabled = false;
    while (listening || pieces.length > 0) {
      if (pieces.length > 0) await accept(pieces.shift(), microphone.rate);
      else await new Promise((resolve) => setTimeout(resolve, 10));
    }
  } finally {
    listening = false;
    find("#microphone span").textContent = "Microphone";
    await microphone.close();
  }
  hear(await engine.ask("finish"));
  say("Ready.");
}

function toggle() {
  if (listening) listening = false;
  else quietly(listen)();
}

// -- the model ------------------------------------------------------------------------------------------------

async function load(precision) {
  say("Loading the model …");
  const took = await engine.ask("load", { precision });
  const bytes = Object.values(model.files[precision]).reduce((sum, file) => sum + file.size_bytes, 0);
  fact("size", `${(bytes / 1e6).toFixed(2)} MB, ${precision}`);
  fact("load", milliseconds(took));
  say("Ready: press the microphone button, or open a recording.");
}

async function measure() {
  say("Measuring …");
  const times = await engine.ask("measure", { cycles: CYCLES });
  show("#measured", times);
  say("Measured: the same cycle as todm bench, on noise.");
}

function offerPrecisions() {
  for (const precision of Object.keys(model.files)) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "radio",
      name: "precision",
      checked: precision === "float",
      onchange: quietly(() => load(precision)),
    });
    label.append(input, precision);
    find("#precision").append(label);
  }
}

function listVocabulary(tokens) {
  const symbols = tokens.filter((symbol, id) => id > 0 && symbol !== "▁");
  const place = find("#vocabulary");
  if (symbols.length > MOST_SYMBOLS) {
    place.textContent = `Anything that its ${symbols.length} pieces of words spell.`;
    return;
  }
  for (const symbol of symbols) place.append(Object.assign(document.createElement("span"), { textContent: symbol }));
}

async function start() {
  const started = await engine.ask("start");
  model = started.model;
  fact("runtime", `ONNX Runtime ${started.version}, 1 thread`);
  fact("chunk", `${1000 * model.program.seconds} ms of sound`);
  listVocabulary(started.tokens);
  offerPrecisions();
  await load("float");
  find("#words").dataset.hint = "The words appear here.";
}

find("#microphone").onclick = toggle;
find("#file input").onchange = ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) quietly(() => open(file))();
};
find("#measure").onclick = quietly(measure);
for (const [event, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(event, (happening) => {
    happening.preventDefault();
    document.body.classList.toggle("dragging", over);
  });
}
document.addEventListener("drop", ({ dataTransfer: { files: [file] } }) => {
  if (file && !find("#file input").disabled) quietly(() => open(file))();
});

const ready = act(start);
ready.catch(() => {});

/** For scripts: `await todm.ready`, then `await todm.transcribe(await (await fetch("a.wav")).arrayBuffer())`. */
window.todm = { ready, transcribe: (buffer) => act(() => transcribe(buffer)) };
