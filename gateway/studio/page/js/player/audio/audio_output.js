/**
 * The sound card: an AudioContext at the sample rate of the take, which the browser converts to that of the hardware, with
 * the worklet that plays what it is sent. Events: "position", what the worklet reports; "context", when the browser permits
 * sound or stops it.
 */

import { scriptUrl } from "../../dom.js";

const WORKLET = "/static/js/player/audio/worklet.js";
/** How often, and after which pauses, the worklet is loaded while the server is away: for two minutes. */
const TRIES = 240;
const PAUSE_MS = 500;
/** Seconds in which a new volume is reached, so that it does not click. */
const VOLUME_GLIDE_SECONDS = 0.015;

export class AudioOutput extends EventTarget {
  #context = null;
  #node = null;
  #gain = null;
  #opening = null;
  #volume = 1;
  #format = "";

  get isOpen() {
    return this.#node !== null;
  }

  /** The last node before the sound card, with its context; null while there is none. */
  get tap() {
    return this.#gain ? { context: this.#context, node: this.#gain } : null;
  }

  /** Factor of the amplitude, 0 to 1. */
  get volume() {
    return this.#volume;
  }

  set volume(volume) {
    this.#volume = Math.max(0, Math.min(1, volume));
    this.#gain?.gain.setTargetAtTime(this.#volume, this.#context.currentTime, VOLUME_GLIDE_SECONDS);
  }

  /** Whether the browser keeps silent until the user has clicked or pressed a key in the page. */
  get isBlocked() {
    return this.#context?.state === "suspended";
  }

  /**
   * Makes the output one for this format. Returns whether it is a new one, which has nothing queued.
   * Throws Error if the browser cannot play it.
   */
  async open(format) {
    const key = `${format.sampleRate}/${format.channels}`;
    if (key !== this.#format) {
      this.#format = key;
      this.#node = null;
      this.#opening = this.#create(format).catch((error) => {
        this.#format = "";
        throw error;
      });
      await this.#opening;
      this.#resume();
      return true;
    }
    await this.#opening;
    this.#resume();
    return false;
  }

  /** Not awaited: it takes until the user does something if the browser wants to see that first. */
  #resume() {
    this.#context.resume().catch(() => {});
  }

  async #create({ sampleRate, channels }) {
    const old = this.#context;
    this.#gain = null;
    await old?.close();
    const context = await openContext(sampleRate);
    this.#context = context;
    context.addEventListener("statechange", () => this.dispatchEvent(new CustomEvent("context")));
    const node = new AudioWorkletNode(context, "take-player", { numberOfInputs: 0, outputChannelCount: [channels] });
    node.port.onmessage = ({ data }) => this.dispatchEvent(new CustomEvent("position", { detail: data }));
    this.#gain = new GainNode(context, { gain: this.#volume });
    node.connect(this.#gain).connect(context.destination);
    this.#node = node;
  }

  /** Drops what is queued. What is pushed with another serial is ignored. */
  reset(serial) {
    this.#send({ type: "reset", serial });
  }

  push(serial, frame, samples, channels) {
    this.#send({ type: "push", serial, frame, samples, channels }, [samples.buffer]);
  }

  finish(serial) {
    this.#send({ type: "finish", serial });
  }

  prebuffer(frames) {
    this.#send({ type: "prebuffer", frames });
  }

  play() {
    this.#send({ type: "play" });
  }

  pause() {
    this.#send({ type: "pause" });
  }

  #send(message, transfer = []) {
    this.#node?.port.postMessage(message, transfer);
  }
}

/**
 * Returns a context with the worklet. If the server is away for a while, the take goes on when it is back. Throws Error if
 * the browser can't play this sample rate.
 */
async function openContext(sampleRate) {
  for (let tried = 1; ; tried += 1) {
    let context;
    try {
      context = new AudioContext({ sampleRate, latencyHint: "playback" });
    } catch (error) {
      throw new Error(`This browser can't play ${sampleRate} Hz. Download the take to hear it. (${error.message})`);
    }
    try {
      await context.audioWorklet.addModule(scriptUrl(WORKLET));
      return context;
    } catch (error) {
      await context.close(); // It remembers that the script could not be loaded.
      if (tried === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
