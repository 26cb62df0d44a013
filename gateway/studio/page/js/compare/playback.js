// One comparison as it sounds: loads the takes, plays them in step, and says where it is.

import { emit } from "../state.js";
import { Mixer } from "./sound/mixer.js";
import { loadSamples, requireMemory } from "./sound/take_audio.js";

const FALLBACK_RATE = 48_000;

/** Events: "position" {seconds, isPlaying}, many times a second while it plays. */
export class Playback extends EventTarget {
  #mixer;
  #context;
  #reported = { seconds: 0, at: 0 };
  #frame = 0;

  /**
   * Loads the takes of a comparison. `onProgress` is told the fraction; `onSamples(index, channels, rate)` is called
   * with the samples of each take before the mixer takes them away.
   */
  static async load(comparison, { signal, onProgress, onSamples }) {
    const playback = new Playback();
    try {
      await playback.#load(comparison, { signal, onProgress, onSamples });
    } catch (error) {
      playback.close();
      throw error;
    }
    return playback;
  }

  async #load(comparison, { signal, onProgress, onSamples }) {
    const channels = comparison.mixChannels;
    this.#context = createContext(comparison.rate);
    const rate = this.#context.sampleRate;
    const { takes } = comparison;
    requireMemory(takes.map(({ seconds }) => seconds), rate, channels);
    const loaded = [];
    for (const [index, { id }] of takes.entries()) {
      const tell = (fraction) => onProgress((index + fraction) / takes.length);
      const take = await loadSamples(id, { sampleRate: rate, channels, signal, onProgress: tell });
      onSamples(index, take.channels, rate);
      loaded.push(take);
    }
    this.seconds = Math.max(...loaded.map((take) => take.channels[0].length)) / rate;
    this.#mixer = await Mixer.create(this.#context, loaded, { channels });
    signal.throwIfAborted();
    this.#mixer.addEventListener("position", ({ detail }) => this.#hear(detail));
    this.#mixer.addEventListener("ended", () => this.#hear({ seconds: this.seconds, playing: false }));
  }

  #hear({ seconds, playing }) {
    this.#reported = { seconds, at: performance.now() };
    if (this.isPlaying !== playing) {
      this.isPlaying = playing;
      if (playing) this.#animate();
    }
    if (!playing) this.#tell();
  }

  #animate() {
    this.#tell();
    if (this.isPlaying) this.#frame = requestAnimationFrame(() => this.#animate());
  }

  #tell() {
    this.dispatchEvent(new CustomEvent("position", { detail: { seconds: this.position, isPlaying: this.isPlaying } }));
  }

  isPlaying = false;
  seconds = 0;

  /** Where what is heard now is, in seconds. */
  get position() {
    const { seconds, at } = this.#reported;
    if (!this.isPlaying) return seconds;
    const since = Math.min(0.1, (performance.now() - at) / 1000);
    return Math.max(0, Math.min(this.seconds, seconds + since - this.#mixer.latency));
  }

  async play() {
    emit("quiet", { owner: "compare" });
    await this.#mixer.play();
  }

  pause() {
    this.#mixer.pause();
  }

  seek(seconds) {
    this.#mixer.seek(Math.max(0, Math.min(this.seconds, seconds)));
  }

  select(index) {
    this.#mixer.select(index);
  }

  setGains(decibels) {
    this.#mixer.setGains(decibels);
  }

  setLoop(range) {
    this.#mixer.setLoop(range);
  }

  close() {
    cancelAnimationFrame(this.#frame);
    this.isPlaying = false;
    this.#mixer?.close();
    this.#context?.close().catch(() => {}); // It may be closed already.
  }
}

function createContext(rate) {
  try {
    return new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
  } catch {
    return new AudioContext({ sampleRate: FALLBACK_RATE, latencyHint: "interactive" }); // The server converts to it.
  }
}
