/** The part of a take that is repeated, in frames. */

/** Frames over which a part that was not made to be a loop fades at its edges, so that the seam does not click. */
const EDGE_FRAMES = 128;

export class LoopRegion {
  /** [from, to] in seconds, or null. */
  range = null;
  isSeamless = false;
  #from = 0;
  #to = Infinity;

  set(range, rate, isSeamless = false) {
    this.range = range;
    this.isSeamless = isSeamless;
    this.#from = range ? Math.round(range[0] * rate) : 0;
    this.#to = range && rate ? Math.max(Math.round(range[1] * rate), this.#from + 4 * EDGE_FRAMES) : Infinity;
  }

  clear() {
    this.set(null, 0);
  }

  /** How many of `frames` from `frame` on come before the seam. After the part, the music plays on. */
  clip(frame, frames) {
    return frame < this.#to ? Math.min(frames, this.#to - frame) : frames;
  }

  /** The frame that is played after the one before `frame`. */
  follow(frame) {
    return frame === this.#to ? this.#from : frame;
  }

  /** Fades the first and the last frames of the part within these samples. */
  fadeEdges(frame, samples, channels) {
    if (!this.range || this.isSeamless) return;
    const frames = samples.length / channels;
    for (let index = 0; index < frames; index += 1) {
      const at = frame + index;
      const distance = Math.min(at - this.#from, this.#to - 1 - at);
      if (distance < 0 || distance >= EDGE_FRAMES) continue;
      for (let channel = 0; channel < channels; channel += 1) {
        samples[index * channels + channel] *= distance / EDGE_FRAMES;
      }
    }
  }
}
