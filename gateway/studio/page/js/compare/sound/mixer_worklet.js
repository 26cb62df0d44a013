// Plays several takes at once, sample by sample in step, of which one is heard: runs in an AudioWorklet.
//
// Messages to it: {load: {takes: [{channels: [Float32Array]}], frames}}, and then
// {play: true|false}, {seek: frame}, {select: index}, {gains: [factor]}, {loop: [start, end] | null}.
// Messages from it: {loaded: true}, {frame, playing} after each message and while it plays, {ended: true}.

const FADE_SECONDS = 0.008; // Of a switch between takes, a jump and a pause: too short to be heard, too long to click.
const FRAMES_PER_REPORT = 1024;

class CompareMixer extends AudioWorkletProcessor {
  constructor() {
    super();
    this.fadeFrames = Math.round(sampleRate * FADE_SECONDS);
    this.takes = [];
    this.frames = 0;
    this.position = 0;
    this.left = null; // The position that a jump leaves, which fades out.
    this.jumped = 0; // Frames since the jump.
    this.target = null; // A jump that waits until the one before has ended.
    this.loop = null;
    this.isPlaying = false;
    this.level = 0; // Of the transport: 0 paused, 1 playing.
    this.unreported = 0;
    this.port.onmessage = ({ data }) => this.accept(data);
  }

  accept(message) {
    if (message.load) this.load(message.load);
    if (message.gains) this.setGains(message.gains);
    if ("select" in message) this.select(message.select);
    if ("loop" in message) this.loop = message.loop;
    if ("seek" in message) this.seek(message.seek);
    if ("play" in message) this.setPlaying(message.play);
    if (!message.load) this.report();
  }

  load({ takes, frames }) {
    this.takes = takes.map(({ channels }) => ({ channels, weight: 0, from: 0, to: 0, gain: 1, wantedGain: 1 }));
    this.frames = frames;
    this.switched = this.fadeFrames;
    this.port.postMessage({ loaded: true });
  }

  setGains(gains) {
    for (const [index, take] of this.takes.entries()) {
      take.wantedGain = gains[index];
      if (!this.level) take.gain = take.wantedGain;
    }
  }

  select(index) {
    for (const [number, take] of this.takes.entries()) Object.assign(take, { from: take.weight, to: number === index ? 1 : 0 });
    this.switched = this.level ? 0 : this.fadeFrames;
    if (!this.level) for (const take of this.takes) take.weight = take.to;
  }

  seek(frame) {
    const target = Math.max(0, Math.min(Math.round(frame), this.frames));
    if (!this.level) this.position = target;
    else if (this.left !== null) this.target = target;
    else this.jump(target);
  }

  jump(target) {
    [this.left, this.position, this.jumped] = [this.position, target, 0];
  }

  repeat() {
    if (this.left === null) this.jump(this.loop[0]);
    else this.target = this.loop[0];
  }

  setPlaying(isPlaying) {
    if (isPlaying && !this.isPlaying && this.position >= this.frames) this.position = this.loop ? this.loop[0] : 0;
    if (isPlaying && this.position === 0) this.level = 1; // Nothing precedes it that could click.
    this.isPlaying = isPlaying;
  }

  process(_, [output]) {
    const count = output[0].length;
    if (!this.isPlaying && this.level === 0) return true;
    for (let frame = 0; frame < count; frame++) {
      this.step();
      if (!this.isPlaying && this.level === 0) break;
      this.write(output, frame);
      this.position += 1;
      if (this.left !== null) this.left += 1;
      if (this.loop && this.position === this.loop[1]) this.repeat();
      else if (this.position >= this.frames && this.isPlaying) this.end();
    }
    this.unreported += count;
    if (this.unreported >= FRAMES_PER_REPORT || this.level === 0) this.report();
    return true;
  }

  /** Moves all fades on by one frame. */
  step() {
    const fade = 1 / this.fadeFrames;
    this.level = this.isPlaying ? Math.min(1, this.level + fade) : Math.max(0, this.level - fade);
    if (this.level < 1e-9) this.level = 0;
    if (this.switched < this.fadeFrames) {
      this.switched += 1;
      const angle = ((this.switched / this.fadeFrames) * Math.PI) / 2;
      // Equal power: of a pair, cos² + sin² = 1.
      const [old, now] = this.switched === this.fadeFrames ? [0, 1] : [Math.cos(angle), Math.sin(angle)];
      for (const take of this.takes) take.weight = take.from * old + take.to * now;
    }
    if (this.left !== null) {
      this.jumped += 1;
      if (this.jumped >= this.fadeFrames) {
        this.left = null;
        if (this.target !== null) {
          const target = this.target;
          this.target = null;
          this.jump(target);
        }
      }
    }
    for (const take of this.takes) {
      const rest = take.wantedGain - take.gain;
      take.gain = Math.abs(rest) < 1e-5 ? take.wantedGain : take.gain + rest * fade * 4;
    }
  }

  write(output, frame) {
    const angle = this.left === null ? Math.PI / 2 : ((this.jumped / this.fadeFrames) * Math.PI) / 2;
    const now = this.left === null ? 1 : Math.sin(angle);
    const before = this.left === null ? 0 : Math.cos(angle);
    for (const { channels, weight, gain } of this.takes) {
      if (!weight) continue;
      const factor = weight * gain * this.level;
      for (let number = 0; number < output.length; number++) {
        const samples = channels[Math.min(number, channels.length - 1)];
        let sample = now * (samples[this.position] ?? 0);
        if (before) sample += before * (samples[this.left] ?? 0);
        output[number][frame] += factor * sample;
      }
    }
  }

  end() {
    this.isPlaying = false;
    this.level = 0;
    this.left = null;
    this.port.postMessage({ ended: true });
  }

  report() {
    this.unreported = 0;
    this.port.postMessage({ frame: this.position, playing: this.isPlaying });
  }
}

registerProcessor("compare-mixer", CompareMixer);
