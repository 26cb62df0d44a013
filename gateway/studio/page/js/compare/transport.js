// Play, loop and the switches of a comparison.

import { element } from "../dom.js";
import { formatExactTime } from "./take_names.js";

/** Buttons and switches. `actions` are {toggle, toggleLoop, loopFrom, loopTo, match(isOn), blind(isOn), pictures(isOn)}. */
export class Transport {
  constructor(actions) {
    const button = (label, run, extra = {}) =>
      element("button", { type: "button", class: "button small", onclick: run, ...extra }, label);
    this.play = button("Play", actions.toggle, { class: "button primary compare-play" });
    this.time = element("span", { class: "compare-time" });
    this.loop = button("Loop", actions.toggleLoop, { "aria-pressed": "false", title: "Repeat what is selected, or everything" });
    const from = button("from here", actions.loopFrom, { "aria-label": "Loop from here", title: "Begin the loop at the playhead" });
    const to = button("to here", actions.loopTo, { "aria-label": "Loop to here", title: "End the loop at the playhead" });
    this.match = this.#switch("Level-matched", "All takes as loud as the quietest", actions.match);
    this.blind = this.#switch("Blind", "Shuffles the takes and hides which is which", actions.blind);
    this.pictures = this.#switch("Pictures", "Pictures may give away which take is which", actions.pictures);
    this.node = element(
      "div",
      { class: "toolbar compare-transport" },
      this.play,
      this.time,
      element("div", { class: "compare-loop-buttons", role: "group", "aria-label": "Loop" }, this.loop, from, to),
      element("span", { class: "spacer" }),
      element("div", { class: "compare-switches" }, this.match.label, this.blind.label, this.pictures.label),
    );
  }

  #switch(name, help, run) {
    const input = element("input", { type: "checkbox", onchange: () => run(input.checked) });
    return { input, label: element("label", { class: "check", title: help }, input, name) };
  }

  setPlaying(isPlaying) {
    this.play.textContent = isPlaying ? "Pause" : "Play";
  }

  setEnabled(isEnabled) {
    for (const button of this.node.querySelectorAll("button")) button.disabled = !isEnabled;
  }

  setTime(position, seconds) {
    this.time.textContent = `${formatExactTime(position)} / ${formatExactTime(seconds)}`;
  }

  setLoop(isOn) {
    this.loop.setAttribute("aria-pressed", String(isOn));
  }

  /** Shows how a comparison is heard. */
  show({ isMatched, isBlind, isRevealed }, showsPictures) {
    this.match.input.checked = isMatched;
    this.blind.input.checked = isBlind;
    this.pictures.input.checked = showsPictures;
    this.pictures.label.hidden = isRevealed;
  }
}
