/**
 * The samples of one take that have arrived, at any place of it: interleaved 32-bit floats, in blocks.
 *
 * Each block is filled from its beginning, so a download that starts in the middle of a take has to start at a block's
 * beginning, or where `missingFrom` says.
 */

/** Frames in a block: 0.7 s at 44.1 kHz. */
export const BLOCK_FRAMES = 32768;

/** @typedef {{sampleRate: number, channels: number, level: string, attempt: number, expectedFrames: number}} AudioFormat */

export class SampleStore {
  #blocks = new Map();

  /** @param {AudioFormat} format expectedFrames is 0 if the length is not known yet. */
  constructor(format) {
    this.format = format;
    /** Length of the take in frames; null until it is known for sure. */
    this.totalFrames = format.level === "FINAL" && format.expectedFrames ? format.expectedFrames : null;
    /** Frame after the last one that has arrived. */
    this.endFrame = 0;
  }

  /** Length of the take in frames, as far as it is known. */
  get lengthFrames() {
    return this.totalFrames ?? Math.max(this.format.expectedFrames, this.endFrame);
  }

  /** Memory for the samples, in bytes. */
  get bytes() {
    return this.#blocks.size * BLOCK_FRAMES * this.format.channels * Float32Array.BYTES_PER_ELEMENT;
  }

  /** The beginning of the block that has this frame. */
  static blockStart(frame) {
    return Math.floor(frame / BLOCK_FRAMES) * BLOCK_FRAMES;
  }

  /**
   * Adds samples (whole frames, interleaved) from `startFrame` on. Throws RangeError if they would leave a gap in a block.
   */
  write(startFrame, samples) {
    const { channels } = this.format;
    const frames = samples.length / channels;
    for (let done = 0; done < frames; ) {
      const frame = startFrame + done;
      const index = Math.floor(frame / BLOCK_FRAMES);
      const offset = frame - index * BLOCK_FRAMES;
      const count = Math.min(BLOCK_FRAMES - offset, frames - done);
      let block = this.#blocks.get(index);
      if (!block) {
        block = { samples: new Float32Array(BLOCK_FRAMES * channels), filled: 0 };
        this.#blocks.set(index, block);
      }
      if (offset > block.filled) throw new RangeError(`frame ${frame} would leave a gap after ${block.filled}`);
      block.samples.set(samples.subarray(done * channels, (done + count) * channels), offset * channels);
      block.filled = Math.max(block.filled, offset + count);
      done += count;
    }
    this.endFrame = Math.max(this.endFrame, startFrame + frames);
  }

  /** The first frame from `frame` on that has not arrived. */
  endOf(frame) {
    return Math.max(frame, this.missingFrom(frame));
  }

  /** Where a download has to start that brings `frame`, or what follows it if that has arrived. */
  missingFrom(frame) {
    for (let index = Math.floor(frame / BLOCK_FRAMES); ; index += 1) {
      const filled = this.#blocks.get(index)?.filled ?? 0;
      if (filled < BLOCK_FRAMES) return index * BLOCK_FRAMES + filled;
    }
  }

  /** A copy of at most `count` frames from `frame` on, interleaved: fewer where the samples known end. */
  read(frame, count) {
    const { channels } = this.format;
    const frames = Math.max(0, Math.min(this.endOf(frame) - frame, count));
    const samples = new Float32Array(frames * channels);
    for (let done = 0; done < frames; ) {
      const index = Math.floor((frame + done) / BLOCK_FRAMES);
      const offset = frame + done - index * BLOCK_FRAMES;
      const part = Math.min(BLOCK_FRAMES - offset, frames - done);
      const block = this.#blocks.get(index).samples;
      samples.set(block.subarray(offset * channels, (offset + part) * channels), done * channels);
      done += part;
    }
    return samples;
  }

  /** The parts that have arrived, as [first frame, frame after the last]. */
  ranges() {
    const ranges = [];
    for (const index of [...this.#blocks.keys()].sort((one, other) => one - other)) {
      const from = index * BLOCK_FRAMES;
      const to = from + this.#blocks.get(index).filled;
      if (ranges.length && ranges.at(-1)[1] === from) ranges.at(-1)[1] = to;
      else ranges.push([from, to]);
    }
    return ranges;
  }

  /** Forgets the blocks farthest from `frame` until the others take at most `maxBytes`. */
  evict(frame, maxBytes) {
    const here = frame / BLOCK_FRAMES;
    const farthest = [...this.#blocks.keys()].sort((one, other) => Math.abs(other - here) - Math.abs(one - here));
    while (this.bytes > maxBytes && farthest.length > 1) this.#blocks.delete(farthest.shift());
  }
}
