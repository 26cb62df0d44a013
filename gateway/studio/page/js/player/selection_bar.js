/** What can be done with a finished take, or with the part of it that is selected in the waveform. */
import { models } from "../compose/model_choice.js";
import { element } from "../dom.js";
import { icon } from "../icons.js";
import { openMenu } from "../menus.js";
import { emit, on } from "../state.js";
import { snapToBars } from "./bar_lines.js";

const CONTINUATION = "CAPABILITY_CONTINUATION";
/** Kind of what goes on from a take, what it is called, and what a model needs for it. */
const WAYS = [
  ["extend-right", "Add music after it", CONTINUATION],
  ["extend-left", "Add music before it", CONTINUATION],
  ["continue", "Continue it as a new take", CONTINUATION],
  ["variation", "Make a variation", ""],
  ["melody", "Follow its melody", "CAPABILITY_MELODY"],
  ["style", "Follow its style", "CAPABILITY_STYLE"],
];

export class SelectionBar {
  #id = "";

  /**
   * @param {import("../drawing/waveform_view.js").WaveformView} view
   * @param {(range: [number, number] | null) => void} onRange is told what is selected.
   */
  constructor(view, onRange) {
    this.view = view;
    this.onRange = onRange;
    this.from = this.#input("Part from");
    this.to = this.#input("to");
    this.clear = button("Clear", () => this.#select(null));
    this.clear.setAttribute("aria-label", "Clear the selection");
    this.snap = button("To bars", () => this.#snap());
    this.snap.setAttribute("aria-label", "Move the selection to the nearest bars");
    this.repaint = button("Replace this part …", () => this.#edit("repaint"));
    this.reason = element("p", { class: "help", id: "repaint-reason" });
    this.repaint.setAttribute("aria-describedby", "repaint-reason");
    this.menu = button("Go on from it", () => this.#openMenu());
    this.menu.setAttribute("aria-haspopup", "menu");
    this.menu.prepend(icon("branch"));
    const range = element("div", { class: "selection", role: "group", "aria-label": "Selected part, in seconds" });
    range.append(this.from.label, this.to.label, element("span", {}, "s"), this.snap, this.clear, this.repaint);
    this.root = element("div", { class: "edit-bar" }, range, this.menu, this.reason);
    view.addEventListener("selection", ({ detail }) => this.#show(detail.range));
    on("models", () => this.#show(view.selection));
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
    const reason = models.whyNone(CONTINUATION);
    if (!range && this.clear === document.activeElement) this.from.input.focus();
    for (const action of [this.snap, this.clear, this.repaint]) action.hidden = !range;
    this.repaint.disabled = Boolean(reason);
    this.reason.textContent = range ? reason : "";
    this.onRange(range);
    if (this.#id) emit("range", { id: this.#id, range });
  }

  async #snap() {
    const [id, range] = [this.#id, this.view.selection];
    try {
      const snapped = await snapToBars(id, range, this.view.seconds);
      if (id === this.#id && range === this.view.selection) this.#select(snapped);
    } catch (error) {
      emit("toast", { text: error.message, kind: "error" });
    }
  }

  #openMenu() {
    const items = WAYS.map(([kind, label, capability]) => {
      const reason = capability && models.whyNone(capability);
      return { label: reason ? `${label}: ${lowerFirst(reason)}` : label, disabled: Boolean(reason), run: () => this.#edit(kind) };
    });
    openMenu(this.menu, items, { label: "Go on from this take" });
  }

  #edit(kind) {
    const [start, end] = this.view.selection ?? [];
    emit("edit", { id: this.#id, kind, ...(kind === "repaint" && { start, end }) });
  }
}

function button(text, onclick) {
  return element("button", { type: "button", class: "button small", onclick }, text);
}

function lowerFirst(text) {
  return text.charAt(0).toLowerCase() + text.slice(1);
}
