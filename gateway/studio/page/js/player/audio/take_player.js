/**
 * Plays one take after another: live from its first chunk, and any place of it once it has arrived.
 *
 * Events: "state" (playback, buffering, loop or what is known of the take has changed), "position", "buffer" {startFrame,
 * samples} (samples have arrived), "problem" {message} (it can't go on).
 */
import { emit, on } from "../../state.js";
import { AudioFeed } from "./audio_feed.js";
import { AudioOutput } from "./audio_output.js";
import { Captures } from "./captures.js";
import { PlayQueue } from "./play_queue.js";
import { ArrivalSpeed, bufferSeconds } from "./prebuffer.js";

export class TakePlayer extends EventTarget {
  /** UUID of the take that is loaded; empty before the first. */
  id = "";
  /** What the listener wants; `state` is what is the case. */
  wantsToPlay = false;
  /** "paused", "buffering", "playing" or "ended". */
  state = "paused";
  /** How often the music had to stop because it had not arrived. */
  underruns = 0;
  isInterrupted = false;
  #feed = null;
  #isFetching = false;
  #captures = new Captures();
  #output = new AudioOutput();
  #queue = new PlayQueue(this.#output);
  #speed = new ArrivalSpeed();
  #outputUnderruns = 0;
  #startSeconds = 0;
  #rate = 0;

  constructor() {
    super();
    this.#output.addEventListener("position", ({ detail }) => this.#moved(detail));
    this.#output.addEventListener("context", () => this.#changed());
    on("quiet", ({ owner }) => owner !== this && this.pause());
  }

  /** @returns {import("./sample_store.js").SampleStore | null} */
  get store() {
    return this.#feed?.store ?? null;
  }

  /** Whether all samples of the take have arrived, or all from the place on where the listener is. */
  get hasArrived() {
    return this.#feed?.isAtEnd ?? false;
  }

  /** Whether the browser keeps silent until the user has clicked or pressed a key in the page. */
  get isBlocked() {
    return this.wantsToPlay && this.#output.isBlocked;
  }

  /** Where the music is, in seconds. */
  get position() {
    if (!this.store || !this.#rate) return this.#startSeconds;
    const sinceReport = this.state === "playing" ? Math.min(this.#queue.reportAge, 0.1) : 0;
    return Math.min(this.#queue.frame / this.#rate + sinceReport, this.seconds || Infinity);
  }

  /** Length of the take in seconds, as far as it is known; 0 if not at all. */
  get seconds() {
    return this.store ? this.store.lengthFrames / this.store.format.sampleRate : 0;
  }

  /** Seconds until the music can start that is generated slower than it plays; 0 if it need not wait. */
  get waitSeconds() {
    const missing = this.wantsToPlay && this.store ? this.#queue.missingFrames(this.store) : 0;
    const speed = this.#speed.value;
    return missing && speed > 0 ? missing / this.store.format.sampleRate / speed : 0;
  }

  /** The part that is repeated, [from, to] in seconds, or null. */
  get loop() {
    return this.#queue.loop.range;
  }

  /** Sets the factor of the amplitude, 0 to 1. */
  set volume(volume) {
    this.#output.volume = volume;
  }

  /** Where the sound comes out, for measurements: {context, node}; null before the first. */
  get tap() {
    return this.#output.tap;
  }

  /** Makes this take the one to be played, from its beginning. Nothing is fetched before `fetch` or `play`. */
  load(id) {
    if (id === this.id) return;
    this.unload();
    this.id = id;
    this.#follow(new AudioFeed(id));
    this.#changed();
  }

  /** Goes on with the samples of the finished file in place of those as they were generated. */
  switchToFile() {
    if (this.store?.format.level !== "LIVE") return;
    const { position, wantsToPlay, loop } = this;
    this.#feed.stop();
    this.#startSeconds = this.state === "ended" ? 0 : position;
    this.#rate = 0;
    this.#isFetching = false;
    this.#queue.goTo(0);
    this.#queue.loop.set(loop, 0, this.#queue.loop.isSeamless);
    this.#follow(new AudioFeed(this.id, "FINAL"));
    if (wantsToPlay) return void this.play();
    this.state = "paused"; // What is heard no more won't report it.
    this.#changed();
  }

  /** Stops, and forgets the take. */
  unload() {
    this.#feed?.stop();
    this.#feed = null;
    this.#output.pause();
    this.#queue.goTo(0);
    this.#queue.loop.clear();
    this.id = "";
    this.#isFetching = false;
    this.#rate = this.#startSeconds = this.underruns = 0;
    this.wantsToPlay = this.isInterrupted = false;
    this.state = "paused";
  }

  /** Begins to fetch the take without playing it, e.g. to draw it while it is being generated. */
  fetch() {
    if (this.#isFetching || !this.#feed) return;
    this.#isFetching = true;
    this.#speed = new ArrivalSpeed();
    this.#feed.start(this.store ? this.#queue.frame : 0);
  }

  /** Ends the download and the sound: nothing more will come of a take that has failed or was cancelled. */
  stop() {
    this.#feed?.stop();
    this.isInterrupted = false;
    this.pause();
    this.#changed();
  }

  /** Plays. Has to be called from a click or a key for the first time; browsers are silent otherwise. */
  async play() {
    if (!this.#feed) return;
    this.wantsToPlay = true;
    emit("quiet", { owner: this });
    if (this.state === "ended") this.seek(0);
    this.fetch();
    this.#changed();
    await this.#sound();
  }

  pause() {
    if (!this.wantsToPlay) return;
    this.wantsToPlay = false;
    this.#output.pause();
    if (this.state === "buffering") this.state = "paused";
    this.#changed();
  }

  toggle() {
    if (this.wantsToPlay) this.pause();
    else this.play();
  }

  /** Goes to this time; to the last sample that has arrived if the music there is still to be generated. */
  seek(seconds) {
    const { store } = this;
    if (store) {
      const last = store.format.level === "LIVE" ? store.endFrame : store.lengthFrames;
      this.#goTo(Math.max(0, Math.min(Math.round(seconds * store.format.sampleRate), last)));
      this.#feed.moveTo(this.#queue.frame);
      this.#pushAhead();
    } else {
      this.#startSeconds = Math.max(0, seconds);
    }
    this.dispatchEvent(new CustomEvent("position"));
    this.#changed();
  }

  /** Repeats this part, in seconds; null to play on. With `isSeamless`, its end fits its start, as that of a loop. */
  setLoop(range, isSeamless = false) {
    const { position } = this;
    this.#queue.loop.set(range, this.#rate, isSeamless);
    // What is queued was chosen by the loop before.
    this.seek(range && (position < range[0] || position >= range[1]) ? range[0] : position);
  }

  /** The live samples of a take as they have arrived, for tests and tools; null if none were heard. */
  captured(id) {
    return this.#captures.read(id);
  }

  #follow(feed) {
    this.#feed = feed;
    const handlers = {
      header: () => this.#begin(),
      data: (detail) => this.#arrived(detail),
      end: () => this.#arrived(null),
      interrupted: () => this.#interrupt(true),
      resumed: () => this.#interrupt(false),
      failed: ({ error }) => this.#fail(error),
    };
    for (const [type, handle] of Object.entries(handlers)) {
      feed.addEventListener(type, ({ detail }) => feed === this.#feed && handle(detail));
    }
  }

  /** There is a new store: the first one, that of another attempt, or that of the finished file. */
  #begin() {
    const { sampleRate, level } = this.store.format;
    const seconds = this.#rate ? this.#queue.frame / this.#rate : this.#startSeconds;
    this.#rate = sampleRate;
    if (level === "LIVE") this.#captures.keep(this.id, this.store);
    this.#queue.loop.set(this.loop, sampleRate, this.#queue.loop.isSeamless);
    this.#goTo(Math.round(seconds * sampleRate));
    if (this.wantsToPlay) this.#sound();
    this.#changed();
  }

  #goTo(frame) {
    this.#queue.goTo(frame);
    if (this.state === "ended") this.state = "paused";
    if (this.wantsToPlay) this.#output.play();
  }

  async #sound() {
    const { store } = this;
    if (!store) return;
    try {
      if (await this.#output.open(store.format)) this.#queue.goTo(this.#queue.frame);
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (store !== this.store || !this.wantsToPlay) return;
    this.#feed.moveTo(this.#queue.frame);
    this.#prepareBuffer();
    this.#pushAhead();
    this.#output.play();
    this.#changed();
  }

  /** Decides how much has to have arrived before the music starts or goes on. */
  #prepareBuffer() {
    const { lengthFrames, format } = this.store;
    const leftSeconds = (lengthFrames - this.#queue.frame) / format.sampleRate;
    const speed = format.level === "LIVE" && !this.hasArrived ? this.#speed.value : Infinity;
    const seconds = bufferSeconds({ leftSeconds, speed, underruns: this.underruns });
    this.#queue.require(seconds, format.sampleRate);
  }

  #arrived(detail) {
    const { format } = this.store;
    if (detail) this.#speed.add(detail.samples.length / format.channels / format.sampleRate);
    this.#pushAhead();
    this.dispatchEvent(new CustomEvent("buffer", { detail }));
    if (!detail) this.#changed();
  }

  #pushAhead() {
    if (!this.store) return;
    this.#queue.fill(this.store);
    this.#feed.moveTo(this.#queue.nextFrame);
  }

  #moved(report) {
    if (!this.#queue.accept(report)) return;
    const isNewState = report.state !== this.state;
    this.state = report.state;
    if (report.underruns > this.#outputUnderruns && this.state === "buffering") {
      this.underruns += 1;
      this.#prepareBuffer();
    }
    this.#outputUnderruns = report.underruns;
    if (this.state === "ended") this.wantsToPlay = false;
    this.#pushAhead();
    this.dispatchEvent(new CustomEvent("position"));
    if (isNewState) this.#changed();
  }

  #interrupt(isInterrupted) {
    this.isInterrupted = isInterrupted;
    this.#changed();
  }

  #fail({ message }) {
    this.isInterrupted = this.#isFetching = false;
    this.pause();
    this.dispatchEvent(new CustomEvent("problem", { detail: { message } }));
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new CustomEvent("state"));
  }
}
