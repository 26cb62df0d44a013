// The discrete Fourier transform of real samples.

/** Computes power spectra of `size` samples, a power of two, under a Hann window. A full-scale sine has the power 1. */
export class PowerSpectrum {
  constructor(size) {
    this.size = size;
    const half = size / 2;
    this.window = Float32Array.from({ length: size }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / size));
    this.cos = Float64Array.from({ length: half }, (_, n) => Math.cos((2 * Math.PI * n) / size));
    this.sin = Float64Array.from({ length: half }, (_, n) => -Math.sin((2 * Math.PI * n) / size));
    this.real = new Float64Array(half);
    this.imaginary = new Float64Array(half);
    this.order = bitReversal(half);
  }

  /** Adds the powers of the bins 0 to size / 2 of the samples from `start` on to `sums`. Outside, there is silence. */
  add(samples, start, sums) {
    const { real, imaginary, order, size, window } = this;
    const half = size / 2;
    // Even samples as the real part, odd ones as the imaginary part: one transform of half the size.
    for (let n = 0; n < half; n++) {
      const even = start + 2 * n;
      const target = order[n];
      real[target] = even >= 0 && even < samples.length ? samples[even] * window[2 * n] : 0;
      imaginary[target] = even + 1 >= 0 && even + 1 < samples.length ? samples[even + 1] * window[2 * n + 1] : 0;
    }
    this.#transform(half);
    // The window halves a sine's amplitude, and the sum over `size` samples has half of it at each of ±f.
    const scale = 16 / (size * size);
    for (let k = 0; k <= half; k++) {
      const here = k % half;
      const mirrored = (half - k) % half;
      const evenReal = (real[here] + real[mirrored]) / 2;
      const evenImaginary = (imaginary[here] - imaginary[mirrored]) / 2;
      const oddReal = (imaginary[here] + imaginary[mirrored]) / 2;
      const oddImaginary = (real[mirrored] - real[here]) / 2;
      const turnReal = k === half ? -1 : this.cos[k];
      const turnImaginary = k === half ? 0 : this.sin[k];
      const sumReal = evenReal + oddReal * turnReal - oddImaginary * turnImaginary;
      const sumImaginary = evenImaginary + oddReal * turnImaginary + oddImaginary * turnReal;
      sums[k] += (sumReal * sumReal + sumImaginary * sumImaginary) * scale;
    }
  }

  #transform(length) {
    const { real, imaginary, cos, sin } = this;
    for (let span = 1; span < length; span *= 2) {
      const stride = this.size / (2 * span);
      for (let block = 0; block < length; block += 2 * span) {
        for (let n = 0; n < span; n++) {
          const [low, high] = [block + n, block + n + span];
          const [turnReal, turnImaginary] = [cos[n * stride], sin[n * stride]];
          const turnedReal = real[high] * turnReal - imaginary[high] * turnImaginary;
          const turnedImaginary = real[high] * turnImaginary + imaginary[high] * turnReal;
          real[high] = real[low] - turnedReal;
          imaginary[high] = imaginary[low] - turnedImaginary;
          real[low] += turnedReal;
          imaginary[low] += turnedImaginary;
        }
      }
    }
  }
}

function bitReversal(length) {
  const order = new Uint32Array(length);
  const bits = Math.log2(length);
  for (let n = 0; n < length; n++) {
    let reversed = 0;
    for (let bit = 0; bit < bits; bit++) reversed |= ((n >> bit) & 1) << (bits - 1 - bit);
    order[n] = reversed;
  }
  return order;
}
