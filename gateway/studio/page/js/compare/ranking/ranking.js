// The ranking of the takes: an ordered list whose items are dragged, or moved by buttons and keys.

import { element } from "../../dom.js";
import { nameParts } from "../take_names.js";

const PLACES = ["1st", "2nd", "3rd", "4th"];

/** Shows and changes the ranking of a comparison. `onChange(text)` gets what has changed, in words. */
export class Ranking {
  constructor({ onChange, onSelect }) {
    Object.assign(this, { onChange, onSelect });
    this.list = element("ol", { class: "compare-ranking", "aria-label": "Ranking, best first" });
    this.items = new Map();
  }

  /** Shows a comparison. */
  show(comparison) {
    this.comparison = comparison;
    this.items = new Map(comparison.takes.map((_, index) => [index, this.#item(index)]));
    this.update();
  }

  /** Puts the items in the order of the ranking, and marks the take that is heard. */
  update() {
    const { comparison } = this;
    comparison.ranking.forEach((index, place) => {
      const { node, up, down, number } = this.items.get(index);
      if (this.list.children[place] !== node) this.list.insertBefore(node, this.list.children[place] ?? null);
      number.textContent = PLACES[place];
      setDisabled(up, place === 0);
      setDisabled(down, place === comparison.ranking.length - 1);
      node.classList.toggle("active", index === comparison.active);
    });
    while (this.list.children.length > comparison.ranking.length) this.list.lastChild.remove();
  }

  /** Moves a take by so many places. */
  move(index, step) {
    const place = this.comparison.ranking.indexOf(index) + step;
    if (place < 0 || place >= this.comparison.ranking.length) return;
    const focused = this.list.contains(document.activeElement) ? document.activeElement : null;
    this.#rank(index, place);
    focused?.focus(); // Moving an element takes the focus from it.
  }

  #rank(index, place) {
    this.comparison.rank(index, place);
    this.update();
    const letter = this.comparison.letters[index];
    this.onChange(`${letter} is ${PLACES[place]} of ${this.comparison.takes.length}`);
  }

  #item(index) {
    const { comparison } = this;
    const letter = comparison.letters[index];
    const { generation } = comparison.takes[index];
    const name = comparison.isRevealed ? nameParts(generation) : [`Take ${letter}`];
    const button = (label, text, step) =>
      element(
        "button",
        { type: "button", class: "icon-button small", "aria-label": `Move ${letter} ${label}`, onclick: () => this.move(index, step) },
        text,
      );
    const [up, down] = [button("up", "▲", -1), button("down", "▼", 1)];
    const number = element("span", { class: "compare-place" });
    const grip = element("span", { class: "compare-grip", "aria-hidden": "true", title: "Drag to rank" }, "⠿");
    const node = element(
      "li",
      { dataset: { series: comparison.shown.indexOf(index) + 1 } },
      grip,
      number,
      element("span", { class: "compare-letter" }, letter),
      element("span", { class: "compare-name", onclick: () => this.onSelect(index) }, ...name),
      up,
      down,
    );
    node.addEventListener("pointerdown", (event) => this.#startDrag(event, index, node));
    return { node, up, down, number };
  }

  #startDrag(event, index, node) {
    if (event.button !== 0 || event.target.closest("button")) return;
    if (event.pointerType === "touch" && !event.target.closest(".compare-grip")) return; // The page scrolls.
    event.preventDefault();
    this.list.setPointerCapture(event.pointerId); // The item itself would lose it as it is moved.
    node.classList.add("dragged");
    const start = event.clientY;
    let hasMoved = false;
    const move = ({ clientY }) => {
      hasMoved ||= Math.abs(clientY - start) > 4;
      const place = hasMoved ? this.#placeAt(clientY, index) : -1;
      if (place >= 0 && place !== this.comparison.ranking.indexOf(index)) this.#rank(index, place);
    };
    const end = () => {
      this.list.removeEventListener("pointermove", move);
      node.classList.remove("dragged");
      if (!hasMoved) this.onSelect(index);
    };
    this.list.addEventListener("pointermove", move);
    this.list.addEventListener("lostpointercapture", end, { once: true });
  }

  /** The place of the ranking at this height: above the middle of as many others as come after it. */
  #placeAt(y, index) {
    const others = this.comparison.ranking.filter((one) => one !== index);
    return others.filter((one) => {
      const { top, height } = this.items.get(one).node.getBoundingClientRect();
      return y > top + height / 2;
    }).length;
  }
}

function setDisabled(button, isDisabled) {
  // Not `disabled`, which would take the focus from the button that has just been pressed.
  button.setAttribute("aria-disabled", String(isDisabled));
}
