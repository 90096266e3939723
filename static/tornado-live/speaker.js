/**
 * AudioWorklet: plays the model's speech through a small jitter buffer.
 *
 * Takes `{pcm: ArrayBuffer, rate}` (PCM16 mono), `{end: true}` (nothing more belongs to this turn: play what is
 * there) and `{clear: true}` (barge-in: silence now, after a 5 ms fade against the click).
 * Posts `{rms, peak, playing, bufferedMs, underruns}` about 25 times a second while sound is queued, and once
 * when it ends; `{dropped: milliseconds}` when more was queued than it holds.
 */

import { Resampler } from "./resampler.js";

const PREFILL_S = 0.1;
const PATIENCE_S = 0.25; // a short answer without an end mark is not held back for longer
const FADE_S = 0.005;
const REPORT_S = 0.04;
const CAPACITY_S = 300; // the model may send faster than people listen

class Speaker extends AudioWorkletProcessor {
  #chunks = [];
  #offset = 0; // samples of the first chunk that were played
  #buffered = 0;
  #resampler = null;
  #rate = 0;
  #playing = false;
  #ended = true;
  #waited = 0;
  #underruns = 0;
  #fade = new Float32Array(0);
  #squares = 0;
  #peak = 0;
  #measured = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      if (data.clear) this.#clear();
      else if (data.end) this.#ended = true;
      else this.#append(new Int16Array(data.pcm), data.rate);
    };
  }

  #append(pcm, rate) {
    if (rate !== this.#rate) {
      this.#rate = rate;
      this.#resampler = new Resampler(rate, sampleRate);
    }
    const chunk = this.#resampler.process(Float32Array.from(pcm, (sample) => sample / 32768));
    if (this.#buffered + chunk.length > CAPACITY_S * sampleRate) {
      this.port.postMessage({ dropped: (pcm.length / rate) * 1000 });
      return;
    }
    this.#ended = false;
    this.#chunks.push(chunk);
    this.#buffered += chunk.length;
  }

  #clear() {
    const fade = new Float32Array(this.#playing ? Math.min(this.#buffered, Math.round(FADE_S * sampleRate)) : 0);
    this.#read(fade);
    this.#fade = fade.map((sample, i) => sample * (1 - i / fade.length));
    this.#chunks = [];
    this.#offset = 0;
    this.#buffered = 0;
    this.#rate = 0;
    this.#ended = true;
  }

  #read(target) {
    let written = 0;
    while (written < target.length && this.#chunks.length > 0) {
      const chunk = this.#chunks[0];
      const part = chunk.subarray(this.#offset, this.#offset + target.length - written);
      target.set(part, written);
      written += part.length;
      this.#offset += part.length;
      if (this.#offset === chunk.length) {
        this.#chunks.shift();
        this.#offset = 0;
      }
    }
    this.#buffered -= written;
    return written;
  }

  process(_inputs, [[output]]) {
    if (this.#fade.length > 0) {
      output.set(this.#fade.subarray(0, output.length));
      this.#fade = this.#fade.slice(output.length);
    } else if (this.#playing || this.#mayStart(output.length)) {
      const before = this.#playing;
      this.#playing = true;
      if (!before) this.#waited = 0;
      if (this.#read(output) < output.length && !this.#ended && before) this.#underruns += 1;
    }
    this.#measure(output);
    if (this.#playing && this.#buffered === 0 && this.#fade.length === 0) {
      this.#playing = false;
      this.#report();
    }
    return true;
  }

  #mayStart(quantum) {
    if (this.#buffered === 0) return false;
    this.#waited += quantum;
    return this.#ended || this.#buffered >= PREFILL_S * sampleRate || this.#waited >= PATIENCE_S * sampleRate;
  }

  #measure(output) {
    if (!this.#playing) return;
    for (const sample of output) {
      this.#squares += sample * sample;
      this.#peak = Math.max(this.#peak, Math.abs(sample));
    }
    this.#measured += output.length;
    if (this.#measured >= REPORT_S * sampleRate) this.#report();
  }

  #report() {
    this.port.postMessage({
      rms: this.#playing ? Math.sqrt(this.#squares / this.#measured) : 0,
      peak: this.#playing ? this.#peak : 0,
      playing: this.#playing,
      bufferedMs: (this.#buffered / sampleRate) * 1000,
      underruns: this.#underruns,
    });
    this.#squares = 0;
    this.#peak = 0;
    this.#measured = 0;
  }
}

registerProcessor("tornado-live-speaker", Speaker);
