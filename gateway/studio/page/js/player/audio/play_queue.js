/** What the audio thread has to play next: it is handed samples of a store, a few seconds ahead. */
import { LoopRegion } from "./loop_region.js";

/** How much of the music the audio thread has ahead: enough for a busy page, little enough to be chosen anew at a seek. */
const QUEUE_SECONDS = 3;
const CHUNK_FRAMES = 8192;

export class PlayQueue {
  /** Frame that is heard now. */
  frame = 0;
  loop = new LoopRegion();
  /** Frame that is handed over next. */
  nextFrame = 0;
  #output;
  /** Until this frame has arrived, nothing is handed over. */
  #heldUntil = 0;
  #serial = 0;
  #queued = 0;
  #reportedAt = 0;
  #isFinishSent = false;

  /** @param {import("./audio_output.js").AudioOutput} output */
  constructor(output) {
    this.#output = output;
  }

  /** Drops what is queued, and goes on from this frame. */
  goTo(frame) {
    this.frame = this.nextFrame = frame;
    this.#heldUntil = 0;
    this.#reportedAt = performance.now();
    this.#queued = 0;
    this.#isFinishSent = false;
    this.#output.reset((this.#serial += 1));
  }

  /** Takes a report of the audio thread. Returns false for one about what has been dropped. */
  accept({ serial, frame, queued, state }) {
    if (serial !== this.#serial) return false;
    if (queued) this.frame = frame;
    else if (state !== "paused") this.frame = this.nextFrame;
    this.#queued = queued;
    this.#reportedAt = performance.now();
    return true;
  }

  /** Says how many seconds have to be there before the music starts or goes on. */
  require(seconds, rate) {
    const most = QUEUE_SECONDS / 2; // More than the audio thread will hold is waited for here.
    this.#heldUntil = seconds > most ? this.frame + Math.floor(seconds * rate) : 0;
    this.#output.prebuffer(Math.round(Math.min(seconds, most) * rate));
  }

  /** Seconds since the audio thread said where it is. */
  get reportAge() {
    return (performance.now() - this.#reportedAt) / 1000;
  }

  /** Hands over samples until there are enough. */
  fill(store) {
    if (!this.#output.isOpen || this.missingFrames(store) > 0) return;
    const { sampleRate, channels } = store.format;
    while (this.#queued < QUEUE_SECONDS * sampleRate) {
      const samples = store.read(this.nextFrame, this.loop.clip(this.nextFrame, CHUNK_FRAMES));
      const frames = samples.length / channels;
      if (!frames) break;
      this.loop.fadeEdges(this.nextFrame, samples, channels);
      this.#output.push(this.#serial, this.nextFrame, samples, channels);
      this.#queued += frames;
      this.nextFrame = this.loop.follow(this.nextFrame + frames);
    }
    if (!this.#isFinishSent && store.totalFrames !== null && this.nextFrame >= store.totalFrames) {
      this.#isFinishSent = true;
      this.#output.finish(this.#serial);
    }
  }

  /** How many frames have to arrive before anything is handed over. */
  missingFrames(store) {
    if (store.totalFrames !== null && this.#heldUntil > store.totalFrames) this.#heldUntil = store.totalFrames;
    const missing = this.#heldUntil - store.endOf(this.frame);
    if (missing <= 0) this.#heldUntil = 0;
    return Math.max(0, missing);
  }
}
