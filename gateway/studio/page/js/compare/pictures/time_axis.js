// The time axis of the pictures: playhead, loop, and what lies under the pointer.

import { element } from "../../dom.js";
import { formatExactTime } from "../take_names.js";

const LEAST_LOOP_SECONDS = 0.1;
const DRAG_PIXELS = 4;

/**
 * An area over the pictures. A click calls `onSeek(seconds)`, a drag `onLoop([start, end])`, and the pointer above it
 * `onHover(seconds | null, y)`. By keyboard it is a slider, of which Space calls `onToggle()`.
 */
export class TimeAxis {
  #seconds = 1;

  constructor({ onSeek, onLoop, onHover, onToggle }) {
    Object.assign(this, { onSeek, onLoop, onHover, onToggle });
    this.loop = element("div", { class: "compare-loop", hidden: true });
    this.pointer = element("div", { class: "compare-pointer", hidden: true });
    this.playhead = element("div", { class: "compare-playhead" });
    this.node = element(
      "div",
      { class: "compare-axis", role: "slider", tabindex: 0, "aria-label": "Position", "aria-valuemin": 0 },
      this.loop,
      this.pointer,
      this.playhead,
    );
    // A click leaves the focus where it is, and with it the meaning of the arrow keys.
    this.node.addEventListener("mousedown", (event) => event.preventDefault());
    this.node.addEventListener("pointerdown", (event) => this.#startDrag(event));
    this.node.addEventListener("pointermove", (event) => this.#hover(event));
    this.node.addEventListener("pointerleave", () => this.#leave());
    this.node.addEventListener("keydown", (event) => this.#press(event));
  }

  /** Sets the length of the axis. */
  setLength(seconds) {
    this.#seconds = Math.max(seconds, 1e-3);
    this.node.setAttribute("aria-valuemax", seconds.toFixed(1));
    this.setPosition(0);
  }

  setPosition(seconds) {
    this.position = seconds;
    this.playhead.style.left = this.#percent(seconds);
    this.node.setAttribute("aria-valuenow", seconds.toFixed(1));
    this.node.setAttribute("aria-valuetext", `${formatExactTime(seconds)} of ${formatExactTime(this.#seconds)}`);
  }

  /** Shows what is repeated, [start, end] or null; `isOn` if it is repeated now. */
  setLoop(range, isOn) {
    this.loop.hidden = !range;
    this.loop.classList.toggle("off", !isOn);
    if (!range) return;
    this.loop.style.left = this.#percent(range[0]);
    this.loop.style.width = this.#percent(range[1] - range[0]);
  }

  #percent(seconds) {
    return `${(100 * Math.max(0, Math.min(1, seconds / this.#seconds))).toFixed(3)}%`;
  }

  #timeAt({ clientX }) {
    const { left, width } = this.node.getBoundingClientRect();
    return Math.max(0, Math.min(1, (clientX - left) / width)) * this.#seconds;
  }

  #hover(event) {
    const seconds = this.#timeAt(event);
    this.pointer.hidden = false;
    this.pointer.style.left = this.#percent(seconds);
    this.onHover(seconds, event.clientY);
  }

  hidePointer() {
    this.pointer.hidden = true;
  }

  #leave() {
    this.hidePointer();
    this.onHover(null, 0);
  }

  #startDrag(event) {
    if (event.button !== 0) return;
    const [startX, from] = [event.clientX, this.#timeAt(event)];
    let range = null;
    this.node.setPointerCapture(event.pointerId);
    const move = (moved) => {
      if (!range && Math.abs(moved.clientX - startX) < DRAG_PIXELS) return;
      const to = this.#timeAt(moved);
      range = [Math.min(from, to), Math.max(from, to)];
      this.setLoop(range, true);
    };
    const end = () => {
      this.node.removeEventListener("pointermove", move);
      if (range && range[1] - range[0] >= LEAST_LOOP_SECONDS) this.onLoop(range);
      else this.onSeek(from);
    };
    this.node.addEventListener("pointermove", move);
    this.node.addEventListener("lostpointercapture", end, { once: true });
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
    const here = this.position ?? 0;
    const targets = {
      ArrowRight: here + 1,
      ArrowLeft: here - 1,
      ArrowUp: here + 1,
      ArrowDown: here - 1,
      PageUp: here + 10,
      PageDown: here - 10,
      Home: 0,
      End: this.#seconds,
    };
    if (event.shiftKey || !(event.key in targets || event.key === " ")) return undefined;
    event.preventDefault();
    if (event.key === " ") return this.onToggle();
    return this.onSeek(Math.max(0, Math.min(this.#seconds, targets[event.key])));
  }
}
