/** Audio from a file or from the microphone, as one channel of samples in [-1, 1] at a rate of its own. */

const ANY_RATE = 48000; // at which the browser is asked to decode files whose rate it alone knows
const RATES = [8000, 192000]; // that every browser decodes at

/** The sample rate in the header of a WAV file; nothing for other files. */
function wavRate(buffer) {
  const view = new DataView(buffer);
  const name = (at) => String.fromCharCode(...new Uint8Array(buffer, at, 4));
  if (buffer.byteLength < 44 || name(0) !== "RIFF" || name(8) !== "WAVE") return undefined;
  for (let at = 12; at + 16 < buffer.byteLength; at += 8 + view.getUint32(at + 4, true)) {
    if (name(at) === "fmt ") return view.getUint32(at + 12, true);
  }
  return undefined;
}

/** Decode a file of any format the browser knows: { samples, rate }. A WAV file keeps its own rate. */
export async function decode(buffer) {
  const own = wavRate(buffer);
  const rate = own >= RATES[0] && own <= RATES[1] ? own : ANY_RATE;
  const audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(buffer).catch(() => {
    throw new Error("this is not audio that the browser can read; try WAV, MP3, Ogg, FLAC or M4A");
  });
  const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
  const samples = channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
  if (samples.length === 0) throw new Error("this recording holds no samples");
  if (!samples.every(Number.isFinite)) throw new Error("this recording holds NaN or infinite samples");
  return { samples, rate };
}

/** Open the microphone: `hear(samples)` is called until `close()`. */
export async function openMicrophone(hear) {
  if (!navigator.mediaDevices) throw new Error("browsers give the microphone to https:// and localhost pages alone");
  const wishes = { channelCount: 1, echoCancellation: false, noiseSuppression: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: wishes }).catch(() => {
    throw new Error("no microphone: none is connected, or this page may not use it");
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule("capture.js");
  const capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0, channelCount: 1 });
  capture.port.onmessage = ({ data }) => hear(data);
  context.createMediaStreamSource(stream).connect(capture);
  const close = async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  };
  return { rate: context.sampleRate, close };
}
