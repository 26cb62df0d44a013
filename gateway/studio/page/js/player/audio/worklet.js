/**
 * Plays the frames that it is sent, one after another, on the audio thread.
 *
 * It receives: {type: "reset", serial} drops what is queued; {type: "push", serial, frame, samples} appends interleaved
 * samples, of which `frame` is the first one's place in the take; {type: "finish", serial} says that nothing follows;
 * {type: "play"}, {type: "pause"}; {type: "prebuffer", frames} sets how much is queued before it starts; {type: "ask"} is
 * answered by {type: "answer"}, when all before it has been read.
 * It sends {type: "position", serial, frame, queued, state, underruns} every few hundredths of a second and when the state
 * changes: "paused", "buffering", "playing" or "ended". Messages of an older serial are ignored by either side.
 */

/** Frames over which the sound fades where it starts or stops in the middle of the music, so that it does not click. */
const FADE_FRAMES = 240;
const REPORT_FRAMES = 2048;

class TakePlayer extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = [];
    this.offset = 0;
    this.queued = 0;
    this.serial = 0;
    this.frame = 0;
    this.isFinished = false;
    this.state = "paused";
    this.wantsToPlay = false;
    this.prebuffer = 0;
    this.gain = 1;
    this.isFadingOut = false;
    this.underruns = 0;
    this.sinceReport = 0;
    this.port.onmessage = ({ data }) => this.receive(data);
  }

  receive(message) {
    if (message.serial !== undefined && message.type !== "reset" && message.serial !== this.serial) return;
    if (message.type === "reset") this.reset(message.serial);
    else if (message.type === "push") this.push(message);
    else if (message.type === "finish") this.isFinished = true;
    else if (message.type === "prebuffer") this.prebuffer = message.frames;
    else if (message.type === "play") this.play();
    else if (message.type === "pause") this.pause();
    else if (message.type === "ask") this.port.postMessage({ type: "answer" });
  }

  reset(serial) {
    this.serial = serial;
    this.queue = [];
    this.offset = 0;
    this.queued = 0;
    this.isFinished = false;
    this.isFadingOut = false;
    if (this.state !== "paused") this.state = "buffering";
    this.gain = 0;
  }

  push({ frame, samples, channels }) {
    if (!this.queued) this.frame = frame;
    if (!this.queued && frame === 0) this.gain = 1; // Music starts as it starts.
    this.queue.push({ frame, samples, channels });
    this.queued += samples.length / channels;
  }

  play() {
    this.wantsToPlay = true;
    if (this.isFadingOut) this.isFadingOut = false;
    else if (this.state === "paused" || this.state === "ended") this.change("buffering");
  }

  pause() {
    this.wantsToPlay = false;
    if (this.state === "playing") this.isFadingOut = true;
    else if (this.state === "buffering") this.change("paused");
  }

  process(_inputs, [output]) {
    if (this.state === "buffering" && (this.isFinished || this.queued >= Math.max(this.prebuffer, 2 * FADE_FRAMES))) {
      this.change(this.queued ? "playing" : "ended");
    }
    if (this.state === "playing") this.render(output);
    return true;
  }

  render(output) {
    const length = output[0].length;
    for (let index = 0; index < length; index += 1) {
      if (!this.queued) {
        this.stopAtEnd();
        return;
      }
      // Where too few frames are left, the sound fades over those, and comes back with the next ones.
      const mustFade = this.isFadingOut || (!this.isFinished && this.queued <= FADE_FRAMES);
      this.gain = Math.max(0, Math.min(1, this.gain + (mustFade ? -1 : 1) / FADE_FRAMES));
      const { samples, channels } = this.queue[0];
      const at = this.offset * channels;
      for (let channel = 0; channel < output.length; channel += 1) {
        output[channel][index] = samples[at + Math.min(channel, channels - 1)] * this.gain;
      }
      this.advance();
      if (this.isFadingOut && this.gain === 0) {
        this.isFadingOut = false;
        this.change("paused");
        return;
      }
    }
    this.sinceReport += length;
    if (this.sinceReport >= REPORT_FRAMES) this.report();
  }

  advance() {
    const { frame, samples, channels } = this.queue[0];
    this.offset += 1;
    this.queued -= 1;
    this.frame = frame + this.offset;
    if (this.offset * channels >= samples.length) {
      this.queue.shift();
      this.offset = 0;
      if (this.queue.length) this.frame = this.queue[0].frame;
    }
  }

  stopAtEnd() {
    if (this.isFinished) {
      this.change("ended");
      return;
    }
    this.underruns += 1;
    this.gain = 0;
    this.change(this.wantsToPlay ? "buffering" : "paused");
  }

  change(state) {
    this.state = state;
    this.report();
  }

  report() {
    this.sinceReport = 0;
    const { serial, frame, queued, state, underruns } = this;
    this.port.postMessage({ type: "position", serial, frame, queued, state, underruns });
  }
}

registerProcessor("take-player", TakePlayer);
