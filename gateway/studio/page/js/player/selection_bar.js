/** What can be done with a finished take, or with the part of it that is selected in the waveform. */
import { element } from "../dom.js";
import { emit } from "../state.js";

export class SelectionBar {
  #id = "";

  /**
   * @param {import("../drawing/waveform_view.js").WaveformView} view
   * @param {(range: [number, number] | null) => void} onRange is told what is selected.
   */
  constructor(view, onRange) {
    this.view = view;
    this.onRange = onRange;
    this.from = this.#input("From");
    this.to = this.#input("to");
    this.clear = button("Clear", () => this.#select(null));
    this.clear.setAttribute("aria-label", "Clear the selection");
    this.repaint = button("Replace this part …", () => this.#edit("repaint"));
    this.repaint.title = "Write a prompt for new music in the selected part";
    const range = element("div", { class: "selection", role: "group", "aria-label": "Selected part, in seconds" });
    range.append(this.from.label, this.to.label, element("span", {}, "s"), this.clear, this.repaint);
    const actions = [
      ["extend-left", "Add before …", "New music that leads into this take"],
      ["extend-right", "Add after …", "New music that follows this take, in one file"],
      ["continue", "Continue …", "A take of its own that follows this one"],
      ["variation", "Variation …", "The same settings with another seed"],
      ["melody", "As melody", "New music that follows the melody of this take"],
      ["style", "As style", "New music in the style of this take"],
    ];
    const edits = element("div", { class: "edits", role: "group", "aria-label": "Go on from this take" });
    edits.append(...actions.map(([kind, text, title]) => button(text, () => this.#edit(kind), title)));
    this.root = element("div", { class: "edit-bar" }, range, edits);
    view.addEventListener("selection", ({ detail }) => this.#show(detail.range));
    this.#show(null);
  }

  /** Shows the actions for this take. */
  show({ id, state }) {
    this.root.hidden = state !== "GENERATION_STATE_COMPLETED";
    if (id === this.#id) return;
    this.#id = id;
    this.#show(null);
  }

  #input(text) {
    const input = element("input", { type: "number", min: "0", step: "0.01", inputmode: "decimal" });
    input.addEventListener("change", () => this.#read());
    return { input, label: element("label", {}, element("span", {}, text), input) };
  }

  #read() {
    const [from, to] = [this.from.input, this.to.input].map((input) => input.valueAsNumber);
    if (Number.isNaN(from) || Number.isNaN(to)) return;
    this.#select([Math.max(0, Math.min(from, to)), Math.min(Math.max(from, to), this.view.seconds)]);
  }

  #select(range) {
    const isRange = range && range[1] > range[0];
    this.view.setSelection(isRange ? range : null);
    this.#show(isRange ? range : null);
  }

  #show(range) {
    this.from.input.value = range ? range[0].toFixed(2) : "";
    this.to.input.value = range ? range[1].toFixed(2) : "";
    this.clear.disabled = this.repaint.disabled = !range;
    this.onRange(range);
    if (this.#id) emit("range", { id: this.#id, range });
  }

  #edit(kind) {
    const [start, end] = this.view.selection ?? [];
    emit("edit", { id: this.#id, kind, ...(kind === "repaint" && { start, end }) });
  }
}

function button(text, onclick, title = "") {
  return element("button", { type: "button", class: "button small", title: title || null, onclick }, text);
}
