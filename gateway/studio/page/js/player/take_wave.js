/** The waveform of the selected take: from its samples while they arrive, and of its file when that is finished. */
import { ApiError, call } from "../api.js";
import { element } from "../dom.js";
import { LivePeaks } from "../drawing/waveform.js";
import { WaveformView } from "../drawing/waveform_view.js";
import { registerShortcut } from "../shortcuts.js";
import { emit } from "../state.js";

const POINTS = 2000;
/** What is drawn of a take of unknown length: a point for this many frames. */
const FRAMES_PER_POINT = 1024;
const HELP =
  "Arrow keys go through the music, with Alt in tenths of a second; with Shift they select a part. " +
  "I and O set the start and the end of the part, Escape removes it.";

/** Keys of the waveform, which it handles itself, as the overlay of keys lists them. */
const KEYS = [
  [["ArrowLeft", "ArrowRight"], "A second back or on (with Alt: a tenth)"],
  [["Shift+ArrowLeft", "Shift+ArrowRight"], "Select a part"],
  [["i", "o"], "The part starts or ends here"],
  [["Escape"], "Select nothing"],
];

export class TakeWave {
  #id = "";
  #live = null;
  #store = null;
  #isFileShown = false;
  #frame = 0;

  /** @param {import("./audio/take_player.js").TakePlayer} player */
  constructor(player) {
    this.player = player;
    const help = element("p", { class: "visually-hidden", id: "wave-help" }, HELP);
    const container = element("div", {});
    this.view = new WaveformView(container, { help: "wave-help" });
    this.root = element("div", { class: "take-wave" }, container, help);
    for (const [keys, label] of KEYS) registerShortcut({ keys, label: `${label}, in the waveform`, group: "Player" });
    this.view.addEventListener("seek", ({ detail }) => player.seek(detail.seconds));
    this.view.addEventListener("toggle", () => player.toggle());
    player.addEventListener("buffer", ({ detail }) => detail && this.#add(detail));
    player.addEventListener("state", () => this.#begin());
    player.addEventListener("position", () => this.#follow());
  }

  /** Shows another take. */
  show(generation) {
    if (generation.id !== this.#id) {
      this.#id = generation.id;
      this.#live = this.#store = null;
      this.#isFileShown = false;
      this.view.setSelection(null);
      this.view.setPeaks([], { seconds: generation.durationSeconds });
      this.view.setPosition(0);
      this.#begin();
    }
    if (generation.state === "GENERATION_STATE_COMPLETED" && !this.#isFileShown) this.#showFile(generation);
  }

  clear() {
    this.#id = "";
    this.view.setSelection(null);
    this.view.setPeaks([], { seconds: 0 });
  }

  async #showFile({ id, durationSeconds }) {
    this.#isFileShown = true;
    try {
      const { data = [], samplesPerPixel, sampleRate } = await call("GetWaveform", { generationId: id, points: POINTS });
      if (id !== this.#id) return;
      const seconds = sampleRate ? (data.length / 2) * (samplesPerPixel / sampleRate) : durationSeconds;
      this.#live = null;
      this.view.setPeaks(data, { seconds: Math.min(seconds, durationSeconds || seconds) });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#isFileShown = false;
      if (id === this.#id) emit("toast", { text: `The waveform could not be read: ${error.message}`, kind: "error" });
    }
  }

  /** Begins to draw the samples of a store that is new. */
  #begin() {
    const { store, id } = this.player;
    if (id !== this.#id || !store || store === this.#store || this.#isFileShown) return;
    this.#store = store;
    const { expectedFrames, channels } = store.format;
    this.#live = new LivePeaks(Math.max(Math.ceil(expectedFrames / POINTS), expectedFrames ? 1 : FRAMES_PER_POINT), channels);
  }

  #add({ startFrame, samples }) {
    if (!this.#live || this.player.store !== this.#store) return;
    this.#live.add(startFrame, samples);
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (!this.#live) return;
      const rate = this.#store.format.sampleRate;
      const secondsPerPeak = this.#live.framesPerPoint / rate;
      this.view.setPeaks(this.#live.peaks, { scale: 1, seconds: this.#store.lengthFrames / rate, secondsPerPeak });
    });
  }

  /** Moves the playhead with the music, as often as the display shows it. */
  #follow() {
    if (this.player.id !== this.#id) return;
    this.view.setPosition(this.player.position);
    if (this.player.state !== "playing" || this.#isFollowing) return;
    this.#isFollowing = true;
    const step = () => {
      if (this.player.id === this.#id) this.view.setPosition(this.player.position);
      this.#isFollowing = this.player.state === "playing";
      if (this.#isFollowing) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  #isFollowing = false;
}
