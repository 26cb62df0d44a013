/**
 * The big waveform of a take: shows what is known of it, where the music is and which part is selected, by mouse, touch
 * and keyboard.
 *
 * Events: "seek" {seconds}, "selection" {range: [from, to] in seconds, or null}, "toggle".
 */
import { element } from "../dom.js";
import { on } from "../state.js";
import { colourOf, drawRuler, drawWaveform } from "./waveform.js";
import { formatSeconds } from "./time_format.js";

const RULER_PIXELS = 16;
/** How far the pointer moves before a click becomes a selection. */
const DRAG_PIXELS = 5;
/** How near the pointer has to be to an edge of the selection to move that. */
const EDGE_PIXELS = 8;
const LEAST_SELECTION_SECONDS = 0.1;
const STEP_SECONDS = 1;
const FINE_STEP_SECONDS = 0.1;

export class WaveformView extends EventTarget {
  /** [from, to] in seconds, or null. */
  selection = null;
  #shown = { peaks: [], scale: 128, seconds: 0, secondsPerPeak: 0 };
  #position = 0;
  #anchor = null;

  /** Puts the view into this element, and names it for screen readers. */
  constructor(container, { label = "Position in the take", help = "" } = {}) {
    super();
    this.container = container;
    this.base = element("canvas", { class: "wave-base", "aria-hidden": "true" });
    this.front = element("canvas", { class: "wave-front", "aria-hidden": "true" });
    this.selected = element("div", { class: "wave-selected", hidden: true });
    this.playhead = element("div", { class: "wave-playhead" });
    container.classList.add("wave-view");
    container.append(this.base, this.front, this.selected, this.playhead);
    const attributes = { tabindex: "0", role: "slider", "aria-label": label, "aria-valuemin": "0" };
    for (const [name, value] of Object.entries(attributes)) container.setAttribute(name, value);
    if (help) container.setAttribute("aria-describedby", help);
    container.addEventListener("pointerdown", (event) => this.#press(event));
    container.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#redraw()).observe(container);
    on("theme", () => this.#redraw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#redraw());
    this.#showPosition();
  }

  get seconds() {
    return this.#shown.seconds;
  }

  /**
   * Shows these peaks. `secondsPerPeak` is 0 if they cover the whole length in `seconds`.
   * @param {ArrayLike<number>} peaks minimum and maximum in turn, of which `scale` is full scale.
   */
  setPeaks(peaks, { scale = 128, seconds, secondsPerPeak = 0 }) {
    this.#shown = { peaks, scale, seconds, secondsPerPeak };
    this.#redraw();
    this.#showPosition();
    this.#showSelection();
  }

  setPosition(seconds) {
    this.#position = seconds;
    this.#showPosition();
  }

  /** Shows a selection, [from, to] in seconds, or none, and tells nobody. */
  setSelection(range) {
    this.selection = range;
    if (!range) this.#anchor = null;
    this.#showSelection();
  }

  #redraw() {
    const { peaks, scale, seconds, secondsPerPeak } = this.#shown;
    const points = peaks.length / 2;
    const covered = secondsPerPeak && seconds ? Math.min(1, (points * secondsPerPeak) / seconds) : points ? 1 : 0;
    drawWaveform(this.base, { peaks, scale, covered, bottom: RULER_PIXELS });
    drawRuler(this.base, seconds, RULER_PIXELS);
    const colour = colourOf(this.front, "wave-played");
    drawWaveform(this.front, { peaks, scale, covered, colour, bottom: RULER_PIXELS });
  }

  #showPosition() {
    const { seconds } = this;
    const share = seconds ? Math.min(1, Math.max(0, this.#position / seconds)) : 0;
    this.playhead.style.insetInlineStart = `${100 * share}%`;
    this.front.style.clipPath = `inset(0 ${100 * (1 - share)}% ${RULER_PIXELS}px 0)`;
    this.container.setAttribute("aria-valuemax", seconds.toFixed(1));
    this.container.setAttribute("aria-valuenow", Math.min(this.#position, seconds).toFixed(1));
    this.container.setAttribute("aria-valuetext", `${formatSeconds(this.#position)} of ${formatSeconds(seconds)}`);
  }

  #showSelection() {
    const { selection, seconds } = this;
    this.selected.hidden = !selection || !seconds;
    if (this.selected.hidden) return;
    this.selected.style.insetInlineStart = `${(100 * selection[0]) / seconds}%`;
    this.selected.style.width = `${(100 * (selection[1] - selection[0])) / seconds}%`;
  }

  #select(from, to) {
    const [low, high] = [Math.min(from, to), Math.max(from, to)].map((time) => Math.max(0, Math.min(time, this.seconds)));
    this.selection = high - low >= LEAST_SELECTION_SECONDS ? [low, high] : null;
    this.#showSelection();
    this.#emit("selection", { range: this.selection });
  }

  #secondsAt(event) {
    const { left, width } = this.container.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - left) / width)) * this.seconds;
  }

  #press(event) {
    if (event.button !== 0 || !this.seconds) return;
    const start = this.#secondsAt(event);
    const { width } = this.container.getBoundingClientRect();
    const near = (EDGE_PIXELS / width) * this.seconds;
    const [from, to] = this.selection ?? [Infinity, Infinity];
    let fixed = start;
    let isDragged = false;
    if (Math.abs(start - from) < near) [fixed, isDragged] = [to, true];
    else if (Math.abs(start - to) < near) [fixed, isDragged] = [from, true];
    this.container.setPointerCapture(event.pointerId);
    const move = (moved) => {
      isDragged ||= Math.abs(moved.clientX - event.clientX) > DRAG_PIXELS;
      if (isDragged) this.#select(fixed, this.#secondsAt(moved));
    };
    const release = (released) => {
      this.container.removeEventListener("pointermove", move);
      this.container.removeEventListener("pointerup", release);
      this.container.removeEventListener("pointercancel", release);
      if (!isDragged && released.type === "pointerup") this.#emit("seek", { seconds: start });
    };
    this.container.addEventListener("pointermove", move);
    this.container.addEventListener("pointerup", release);
    this.container.addEventListener("pointercancel", release);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || !this.seconds) return;
    const step = event.altKey ? FINE_STEP_SECONDS : STEP_SECONDS;
    const targets = {
      ArrowLeft: this.#position - step,
      ArrowRight: this.#position + step,
      PageDown: this.#position - 10 * step,
      PageUp: this.#position + 10 * step,
      Home: 0,
      End: this.seconds,
    };
    if (event.key in targets) this.#moveTo(Math.max(0, Math.min(targets[event.key], this.seconds)), event.shiftKey);
    else if (event.key === " ") this.#emit("toggle", {});
    else if (event.key === "Escape" && this.selection) this.#select(0, 0);
    else if (event.key === "i") this.#select(this.#position, this.selection?.[1] ?? this.seconds);
    else if (event.key === "o") this.#select(this.selection?.[0] ?? 0, this.#position);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** With Shift, what lies between the old and the new place is selected, as in a text. */
  #moveTo(seconds, isSelecting) {
    if (isSelecting) {
      this.#anchor ??= this.#position;
      this.#select(this.#anchor, seconds);
    } else {
      this.#anchor = null;
    }
    this.#emit("seek", { seconds });
    this.setPosition(seconds);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
