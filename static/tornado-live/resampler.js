/**
 * Band-limited conversion between two sample rates, block by block: a polyphase windowed-sinc filter.
 *
 * What the lower rate cannot hold is filtered out before decimation (83 dB down above its Nyquist frequency, flat to
 * 0.8 of it), so that hiss above 8 kHz does not fold into speech. The delay is about 1.5 ms at 16 kHz.
 */

const ZERO_CROSSINGS = 24;
const ROLLOFF = 0.9; // where it is 6 dB down, as a part of the lower Nyquist frequency
const KAISER_BETA = 7.5;

const greatestCommonDivisor = (a, b) => (b === 0 ? a : greatestCommonDivisor(b, a % b));

function besselI0(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > 1e-10 * sum; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

export class Resampler {
  #up; // output position n lies at n * down / up input samples
  #down;
  #half;
  #phases;
  #history;
  #position = 0; // of the next output sample, in 1/up input samples from the start of #history

  /** @param {number} from  @param {number} to  sample rates in hertz, whole numbers */
  constructor(from, to) {
    const divisor = greatestCommonDivisor(from, to);
    this.#up = to / divisor;
    this.#down = from / divisor;
    const bandwidth = Math.min(1, to / from) * ROLLOFF;
    this.#half = Math.ceil(ZERO_CROSSINGS / Math.min(1, to / from));
    this.#phases = Array.from({ length: this.#up }, (_, phase) => this.#taps(phase / this.#up, bandwidth));
    this.#history = new Float32Array(this.#half - 1);
  }

  #taps(offset, bandwidth) {
    const taps = new Float32Array(2 * this.#half);
    const scale = besselI0(KAISER_BETA);
    let sum = 0;
    for (let k = 0; k < taps.length; k += 1) {
      const distance = k - this.#half + 1 - offset;
      const inside = Math.max(0, 1 - (distance / this.#half) ** 2);
      taps[k] = sinc(bandwidth * distance) * (besselI0(KAISER_BETA * Math.sqrt(inside)) / scale);
      sum += taps[k];
    }
    return taps.map((tap) => tap / sum);
  }

  /**
   * @param {Float32Array} input  the next block
   * @returns {Float32Array} what can be computed so far; its length varies by one from block to block
   */
  process(input) {
    if (this.#up === this.#down) return input.slice();
    const samples = new Float32Array(this.#history.length + input.length);
    samples.set(this.#history);
    samples.set(input, this.#history.length);

    const width = 2 * this.#half;
    const lastStart = samples.length - width;
    const room = Math.floor((lastStart * this.#up - this.#position) / this.#down) + 1;
    const output = new Float32Array(Math.max(0, room));
    for (let n = 0; n < output.length; n += 1) {
      const start = Math.floor(this.#position / this.#up);
      const taps = this.#phases[this.#position % this.#up];
      let sum = 0;
      for (let k = 0; k < width; k += 1) sum += taps[k] * samples[start + k];
      output[n] = sum;
      this.#position += this.#down;
    }
    const used = Math.min(Math.floor(this.#position / this.#up), samples.length);
    this.#history = samples.slice(used);
    this.#position -= used * this.#up;
    return output;
  }
}
