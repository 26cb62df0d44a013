// The takes side by side: which one is heard.

import { element } from "../dom.js";
import { formatGain, originOf, titleOf } from "./take_names.js";

/** A group of radio buttons, one for each take. `onSelect(index)` and `onToggle()` are called as the user chooses. */
export class TakeSwitch {
  constructor({ onSelect, onToggle, onRemove }) {
    Object.assign(this, { onSelect, onToggle, onRemove });
    this.node = element("div", {
      class: "compare-takes",
      role: "radiogroup",
      "aria-label": "Take that is heard",
      onkeydown: (event) => this.#press(event),
    });
    this.radios = [];
  }

  /** Shows a comparison. */
  show(comparison) {
    this.comparison = comparison;
    this.radios = [];
    this.node.dataset.count = comparison.takes.length;
    this.node.replaceChildren(...comparison.shown.map((index, place) => this.#card(index, place)));
    this.update();
  }

  /** Shows which take is heard. */
  update() {
    for (const { radio, index } of this.radios) {
      const isActive = index === this.comparison.active;
      radio.setAttribute("aria-checked", String(isActive));
      radio.tabIndex = isActive ? 0 : -1;
    }
  }

  /** Gives the focus to the take that is heard. */
  focus() {
    this.radios.find(({ index }) => index === this.comparison.active).radio.focus();
  }

  #card(index, place) {
    const { comparison } = this;
    const { generation, lufs } = comparison.takes[index];
    const letter = comparison.letters[index];
    const gain = comparison.gains[index];
    const lines = [];
    if (comparison.isRevealed) {
      lines.push(element("span", { class: "compare-title", dir: "auto" }, titleOf(generation)));
      lines.push(element("span", { class: "compare-origin" }, originOf(generation)));
      const level = lufs === null ? "no loudness: its level is kept" : `${lufs.toFixed(1).replace("-", "−")} LUFS`;
      const applied = comparison.isMatched && Math.abs(gain) > 0.05 ? `, heard at ${formatGain(gain)}` : "";
      lines.push(element("span", { class: "compare-level" }, level + applied));
    } else {
      lines.push(element("span", { class: "compare-title" }, `Take ${letter}`));
    }
    const radio = element(
      "button",
      { type: "button", role: "radio", class: "compare-take", dataset: { series: place + 1 }, onclick: () => this.onSelect(index) },
      element("span", { class: "compare-letter" }, letter),
      element("span", { class: "compare-facts" }, ...lines),
      element("kbd", { "aria-hidden": "true" }, String(place + 1)),
    );
    this.radios.push({ radio, index });
    const canRemove = comparison.isRevealed && comparison.takes.length > 2;
    const remove = canRemove && {
      type: "button",
      class: "icon-button small compare-remove",
      "aria-label": `Take ${letter} out of the comparison`,
      title: "Take it out of the comparison",
      onclick: () => this.onRemove(comparison.takes[index].id),
    };
    return element("div", { class: "compare-card", role: "presentation" }, radio, remove && element("button", remove, "×"));
  }

  #press(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.key === " " && event.target.getAttribute("role") === "radio") {
      event.preventDefault(); // What is focused is heard already, so that Space can play and pause.
      this.onToggle();
    } else if (step) {
      event.preventDefault();
      const here = this.radios.findIndex(({ index }) => index === this.comparison.active);
      const next = this.radios[(here + step + this.radios.length) % this.radios.length];
      this.onSelect(next.index);
      next.radio.focus();
    }
  }
}
