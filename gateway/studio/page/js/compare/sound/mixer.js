// Takes that play in step, of which one is heard: the page's side of the AudioWorklet.

const MODULE = "/static/js/compare/sound/mixer_worklet.js";

/**
 * Plays takes in one AudioContext. Events: "position" {seconds, playing}, "ended". All lengths are in seconds of the
 * context's sample rate, at which the takes' samples have to be.
 */
export class Mixer extends EventTarget {
  #node;
  #context;

  /** Returns a mixer of `takes`, [{channels: [Float32Array]}], whose samples are given away. `channels` is the output's number. */
  static async create(context, takes, { channels = 2 } = {}) {
    if (!context.audioWorklet) {
      throw new Error("this browser plays takes in step only on https or on localhost; open the Studio there");
    }
    await context.audioWorklet.addModule(MODULE);
    const mixer = new Mixer(context, channels);
    await mixer.#load(takes);
    return mixer;
  }

  constructor(context, channels) {
    super();
    this.#context = context;
    const options = { numberOfInputs: 0, numberOfOutputs: 1, outputChannelCount: [channels] };
    this.#node = new AudioWorkletNode(context, "compare-mixer", options);
    this.#node.connect(context.destination);
  }

  #load(takes) {
    const frames = Math.max(...takes.map(({ channels }) => channels[0].length));
    const buffers = takes.flatMap(({ channels }) => channels.map((samples) => samples.buffer));
    return new Promise((resolve, reject) => {
      this.#node.addEventListener("processorerror", () => reject(new Error("the browser can't play these takes")));
      this.#node.port.onmessage = ({ data }) => {
        if (data.loaded) resolve();
        else this.#hear(data);
      };
      this.#node.port.postMessage({ load: { takes: takes.map(({ channels }) => ({ channels })), frames } }, buffers);
    });
  }

  #hear({ frame, playing, ended }) {
    if (ended) this.dispatchEvent(new Event("ended"));
    else this.dispatchEvent(new CustomEvent("position", { detail: { seconds: frame / this.#context.sampleRate, playing } }));
  }

  #send(message) {
    this.#node.port.postMessage(message);
  }

  /** Plays on, from the beginning if it has reached the end. */
  async play() {
    const isLive = this.#context instanceof AudioContext;
    if (isLive && this.#context.state === "suspended") await this.#context.resume();
    this.#send({ play: true });
  }

  pause() {
    this.#send({ play: false });
  }

  seek(seconds) {
    this.#send({ seek: seconds * this.#context.sampleRate });
  }

  /** Makes the take with this index the one that is heard. */
  select(index) {
    this.#send({ select: index });
  }

  /** Sets how much each take is amplified, in dB. */
  setGains(decibels) {
    this.#send({ gains: decibels.map((one) => 10 ** (one / 20)) });
  }

  /** Repeats [start, end] from when its end is reached; null for nothing. */
  setLoop(range) {
    this.#send({ loop: range && range.map((seconds) => Math.round(seconds * this.#context.sampleRate)) });
  }

  /** How much later than it is reported a sample leaves the computer, in seconds. */
  get latency() {
    return this.#context.outputLatency || this.#context.baseLatency || 0;
  }

  close() {
    this.#node.disconnect();
    this.#node.port.close();
  }
}
