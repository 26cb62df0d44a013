/**
 * Fetches the samples of a take into a store: from the frame that is needed on, across lost connections and attempts.
 *
 * Events: "header" {store} (also when another attempt or the finished file takes its place), "data" {startFrame, samples},
 * "end" (everything up to the end has arrived), "interrupted" {error}, "resumed", "failed" {error}.
 */
import { liveUrl, request as fetchResponse } from "../../api.js";
import { SampleStore } from "./sample_store.js";

/** Long enough for the news that a take was cancelled, which ends its samples too. */
const FIRST_PAUSE_MS = 250;
const MAX_PAUSE_MS = 2000;
/** How long to try to go on after a connection was lost before the listener has to ask for it. */
const RESUME_MS = 120_000;
/** How far a finished file is read ahead of what is played; the server waits meanwhile. */
const AHEAD_SECONDS = 60;
/** A seek to what comes so soon waits for it, instead of another download. */
const NEAR_SECONDS = 5;
/** Memory for the samples of one take; those farthest from the playhead make room. */
const MAX_BYTES = 512 * 2 ** 20;
/** Codes of errors after which the same call may succeed. */
const PASSING = new Set(["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED", "INTERNAL", "DATA_LOSS", "CANCELLED"]);

export class AudioFeed extends EventTarget {
  /** @type {SampleStore | null} */
  store = null;
  #abort = new AbortController();
  #request = 0;
  #level = "";
  #nextFrame = 0;
  #waiting = null;
  #lostAt = 0;
  #pauseMs = FIRST_PAUSE_MS;

  /**
   * @param {string} id UUID of the generation or clip.
   * @param {string} level "LIVE" or "FINAL"; empty for the finished file if there is one, else live.
   */
  constructor(id, level = "") {
    super();
    this.id = id;
    this.#level = level;
    /** First frame that the listener needs; the download stays near it. */
    this.playFrame = 0;
    this.isAtEnd = false;
  }

  /** Fetches from this frame on, unless that is under way. */
  start(frame = 0) {
    this.playFrame = frame;
    this.#restart(this.store ? this.store.missingFrom(frame) : 0);
  }

  /** Says where the listener is. Fetches from there if that has not arrived and is not about to. */
  moveTo(frame) {
    this.playFrame = frame;
    if (!this.store) return;
    const missing = this.store.missingFrom(frame);
    const { level, sampleRate } = this.store.format;
    const isComplete = this.store.totalFrames !== null && missing >= this.store.totalFrames;
    const isBehind = missing < this.#nextFrame;
    const isFarAhead = level === "FINAL" && missing > this.#nextFrame + NEAR_SECONDS * sampleRate;
    if (!isComplete && (isBehind || isFarAhead)) this.#restart(missing);
    this.#wake();
  }

  /** Ends the download for good. What has arrived remains in the store. */
  stop() {
    this.#request += 1;
    this.#abort.abort();
    this.#wake();
  }

  #restart(frame) {
    this.stop();
    this.#abort = new AbortController();
    this.#nextFrame = frame;
    this.isAtEnd = false;
    this.#lostAt = 0;
    this.#run(this.#request, this.#abort.signal);
  }

  async #run(request, signal) {
    while (request === this.#request) {
      try {
        if (await this.#receive(request, signal)) return;
      } catch (error) {
        if (request !== this.#request) return;
        if (!(await this.#mayGoOn(error, signal))) {
          this.#emit("failed", { error });
          return;
        }
      }
    }
  }

  /** Makes one call. Returns true once the end was reached, or another request took over. */
  async #receive(request, signal) {
    const asked = this.#nextFrame;
    const response = await fetchResponse(liveUrl(this.id, asked, this.#level), { signal, cache: "no-store" });
    if (!this.#accept(formatOf(response.headers))) {
      await response.body.cancel();
      return false;
    }
    if (this.#lostAt) this.#emit("resumed");
    this.#lostAt = 0;
    this.#pauseMs = FIRST_PAUSE_MS;
    const { channels } = this.store.format;
    const reader = response.body.getReader();
    let rest = new Uint8Array(0);
    for (;;) {
      await this.#waitForRoom(request);
      const { done, value } = await reader.read();
      if (request !== this.#request) return true;
      if (done) break;
      const { samples, remainder } = toSamples(rest, value, channels);
      rest = remainder;
      if (samples.length) this.#store(samples, channels);
    }
    if (rest.length) throw new TypeError("the stream ended within a frame");
    this.store.totalFrames = this.#nextFrame;
    this.isAtEnd = true;
    this.#emit("end");
    return true;
  }

  #store(samples, channels) {
    const startFrame = this.#nextFrame;
    this.store.write(startFrame, samples);
    this.#nextFrame += samples.length / channels;
    this.store.evict(this.playFrame, MAX_BYTES);
    this.#emit("data", { startFrame, samples });
  }

  /**
   * Whether the samples of this stream can be stored. If they don't belong to those in the store, as another attempt makes
   * them again or they are those of the file, an empty store takes its place, and `#nextFrame` says where that begins.
   */
  #accept(format) {
    const known = this.store?.format;
    if (known && ["level", "attempt", "sampleRate", "channels"].every((name) => known[name] === format[name])) return true;
    const asked = this.#nextFrame;
    const isFile = format.level === "FINAL" && known;
    this.#nextFrame = isFile ? SampleStore.blockStart((this.playFrame * format.sampleRate) / known.sampleRate) : 0;
    this.#level = format.level;
    this.store = new SampleStore(format);
    this.#emit("header", { store: this.store });
    return this.#nextFrame === asked;
  }

  /** Waits before the next call. Returns false if that would not help. */
  async #mayGoOn(error, signal) {
    const code = error.code ?? "";
    if (code === "NOT_FOUND" && this.#level === "LIVE") {
      // The samples as generated are kept for some minutes only. The file has the music at the same times.
      this.#level = "";
      return true;
    }
    if (code && !PASSING.has(code)) return false;
    const now = performance.now();
    if (!this.#lostAt) {
      this.#lostAt = now;
      this.#emit("interrupted", { error });
    } else if (now - this.#lostAt > RESUME_MS) {
      return false;
    }
    await pause(Math.max(this.#pauseMs, (error.retryAfterSeconds ?? 0) * 1000), signal);
    this.#pauseMs = Math.min(2 * this.#pauseMs, MAX_PAUSE_MS);
    return true;
  }

  /** The samples of a file are taken as they are needed; live ones as they come, as long as there is much room. */
  async #waitForRoom(request) {
    const { sampleRate, level } = this.store.format;
    while (request === this.#request && (level === "FINAL" || this.store.bytes > MAX_BYTES / 2)) {
      if (this.#nextFrame - this.playFrame < AHEAD_SECONDS * sampleRate) return;
      await new Promise((resolve) => (this.#waiting = resolve));
    }
  }

  #wake() {
    this.#waiting?.();
    this.#waiting = null;
  }

  #emit(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @returns {import("./sample_store.js").AudioFormat} */
function formatOf(headers) {
  const number = (name) => Number(headers.get(`dgx-music-${name}`) ?? 0);
  return {
    sampleRate: number("sample-rate"),
    channels: number("channels"),
    level: headers.get("dgx-music-level") ?? "",
    attempt: number("attempt"),
    expectedFrames: number("expected-frames"),
  };
}

/** Returns the whole frames of the bytes, and the bytes that are left. Network chunks end anywhere. */
function toSamples(rest, value, channels) {
  let bytes = value;
  if (rest.length) {
    bytes = new Uint8Array(rest.length + value.length);
    bytes.set(rest);
    bytes.set(value, rest.length);
  }
  const whole = bytes.length - (bytes.length % (channels * Float32Array.BYTES_PER_ELEMENT));
  // A copy: floats have to begin at a multiple of four, where a chunk seldom does.
  const samples = new Float32Array(bytes.slice(0, whole).buffer);
  return { samples, remainder: bytes.slice(whole) };
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      removeEventListener("online", finish);
      signal.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, milliseconds);
    addEventListener("online", finish);
    signal.addEventListener("abort", finish);
  });
}
