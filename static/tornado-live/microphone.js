/**
 * AudioWorklet: microphone in, PCM16 mono at 16 kHz out.
 *
 * Posts `{pcm: ArrayBuffer, rms, peak}` every 32 ms (512 samples, the frame of the usual voice detectors);
 * levels are 0 to 1. The buffers are transferred, not copied.
 */

import { Resampler } from "./resampler.js";

const RATE = 16000;
const FRAME = 512;

class Microphone extends AudioWorkletProcessor {
  #resampler = new Resampler(sampleRate, RATE);
  #frame = new Int16Array(FRAME);
  #filled = 0;
  #squares = 0;
  #peak = 0;

  process([channels]) {
    if (channels.length > 0) for (const sample of this.#resampler.process(mono(channels))) this.#take(sample);
    return true;
  }

  #take(sample) {
    const level = Math.max(-1, Math.min(1, sample));
    this.#frame[this.#filled] = level < 0 ? level * 32768 : level * 32767;
    this.#squares += level * level;
    this.#peak = Math.max(this.#peak, Math.abs(level));
    this.#filled += 1;
    if (this.#filled === FRAME) this.#post();
  }

  #post() {
    const pcm = this.#frame.buffer;
    this.port.postMessage({ pcm, rms: Math.sqrt(this.#squares / FRAME), peak: this.#peak }, [pcm]);
    this.#frame = new Int16Array(FRAME);
    this.#filled = 0;
    this.#squares = 0;
    this.#peak = 0;
  }
}

function mono(channels) {
  if (channels.length === 1) return channels[0];
  const mixed = new Float32Array(channels[0].length);
  for (const channel of channels) for (let i = 0; i < mixed.length; i += 1) mixed[i] += channel[i] / channels.length;
  return mixed;
}

registerProcessor("tornado-live-microphone", Microphone);
