// The takes that are marked, to do something with several at once: compare, save as a session, delete.

import { saveSession } from "../details/session_dialog.js";
import { element as el } from "../dom.js";
import { icon } from "../icons.js";
import { emit, getTake, on } from "../state.js";
import { toast } from "../toasts.js";
import { deleteTakes } from "./deletion.js";

const MAX_COMPARED = 4;
const MAX_IN_SESSION = 64;

/** Holds the marks. Sends "change" {id}, or without an id when all are gone. */
export class MarkedTakes extends EventTarget {
  #ids = new Set();
  #list;

  constructor(list) {
    super();
    this.#list = list;
    on("deleted", ({ id }) => this.#ids.delete(id) && this.#changed(id));
    this.element = this.#createBar();
  }

  /** Whether a take is marked. */
  has(id) {
    return this.#ids.has(id);
  }

  /** Marks a take or takes its mark away. */
  toggle(id, isMarked = !this.#ids.has(id)) {
    if (isMarked) this.#ids.add(id);
    else this.#ids.delete(id);
    this.#changed(id);
  }

  /** Takes all marks away. */
  clear() {
    this.#ids.clear();
    this.#changed();
  }

  /** Opens the comparison of the marked takes that are finished. */
  compare() {
    if (!this.#ids.size) return emit("compare-open"); // Those that were added one by one.
    const ids = this.#finished().map(({ id }) => id);
    if (ids.length < 2) return toast("Mark two to four finished takes to compare them.");
    if (ids.length > MAX_COMPARED)
      return toast(`Up to ${MAX_COMPARED} takes can be compared at once; ${ids.length} are marked.`);
    return emit("compare-open", { ids });
  }

  #finished() {
    return [...this.#ids].map(getTake).filter((one) => one?.state === "GENERATION_STATE_COMPLETED");
  }

  #saveSession() {
    const takes = this.#finished();
    if (!takes.length) return toast("None of the marked takes is finished.");
    if (takes.length > MAX_IN_SESSION)
      return toast(`A session takes up to ${MAX_IN_SESSION} takes; ${takes.length} are marked.`);
    return saveSession(takes);
  }

  #createBar() {
    this.count = el("span", { role: "status" });
    const button = (label, name, run, kind = "") =>
      el("button", { type: "button", class: `button small ${kind}`, onclick: run }, icon(name), label);
    const clear = {
      type: "button",
      class: "icon-button small",
      "aria-label": "Take all marks away",
      onclick: () => this.clear(),
    };
    return el(
      "div",
      { class: "marked-bar", role: "group", "aria-label": "Marked takes", hidden: true },
      this.count,
      button("Compare", "compare", () => this.compare()),
      button("Session", "download", () => this.#saveSession()),
      button("Delete", "trash", () => deleteTakes([...this.#ids], this.#list), "danger"),
      el("button", clear, icon("close")),
    );
  }

  #changed(id) {
    this.element.hidden = !this.#ids.size;
    this.count.textContent = `${this.#ids.size} marked`;
    this.dispatchEvent(new CustomEvent("change", { detail: { id } }));
  }
}
