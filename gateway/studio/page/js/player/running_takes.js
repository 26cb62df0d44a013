/** The takes that are waiting or being made, with their progress; and those that have failed since the page was opened. */
import { element } from "../dom.js";
import { allTakes, emit, isFinished, on, selectedId } from "../state.js";
import { cancelTake, retryTake } from "./take_changes.js";
import { describeProgress, STATES } from "./take_progress.js";

/** A screen reader hears of a take's progress when it has passed another quarter. */
const SPOKEN_STEPS = 4;
const SHOWN = 10;

export class RunningTakes {
  #items = new Map();
  #queues = new Map();
  #failed = new Set();
  #spoken = new Map();

  constructor(region) {
    this.list = element("ul", { class: "takes", role: "list" });
    this.title = element("h3", { id: "running-title" }, "In the works");
    this.status = element("p", { class: "visually-hidden", role: "status" });
    this.more = element("p", { class: "help" });
    this.root = element("div", { class: "running", hidden: true }, this.title, this.list, this.more);
    region.append(this.root, this.status);
    on("changed", ({ generation, queue }) => this.#changed(generation, queue));
    on("deleted", ({ id }) => this.#drop(id));
    on("select", () => this.#mark());
    for (const generation of allTakes()) this.#changed(generation);
  }

  #changed(generation, queue) {
    const { id, state } = generation;
    if (queue) this.#queues.set(id, queue);
    const wasHere = this.#items.has(id);
    if (state === "GENERATION_STATE_FAILED" && wasHere) this.#failed.add(id);
    else this.#failed.delete(id);
    if (isFinished(generation) && !this.#failed.has(id)) {
      if (wasHere) this.#say(generation, `${STATES[state]}: ${shorten(generation.prompt)}`);
      this.#drop(id);
      return;
    }
    if (!wasHere) this.#add(generation);
    this.#update(generation);
  }

  #add(generation) {
    const { id } = generation;
    const name = element("button", { type: "button", class: "take-name", dir: "auto", onclick: () => emit("select", { id, show: true }) });
    const bar = element("progress", { class: "progress", max: "1", "aria-label": "Progress" });
    const text = element("p", { class: "take-text" });
    const actions = element("div", { class: "take-actions" });
    const root = element("li", { class: "take", dataset: { id } }, name, bar, text, actions);
    this.#items.set(id, { root, name, bar, text, actions, state: "" });
    this.list.append(root);
    this.#count();
    this.#mark();
  }

  #update(generation) {
    const item = this.#items.get(generation.id);
    item.name.textContent = shorten(generation.prompt);
    if (generation.state !== item.state) this.#showActions(item, generation);
    if (generation.state === "GENERATION_STATE_FAILED") {
      item.bar.hidden = true;
      item.text.textContent = `Failed: ${generation.errorMessage}`;
      this.#say(generation, `Failed: ${shorten(generation.prompt)}`);
      return;
    }
    const { text, share } = describeProgress(generation, this.#queues.get(generation.id));
    item.bar.hidden = false;
    if (share === null) item.bar.removeAttribute("value");
    else item.bar.value = share;
    item.text.textContent = text;
    const step = Math.floor((share ?? 0) * SPOKEN_STEPS);
    this.#say(generation, step ? `${Math.round((100 * step) / SPOKEN_STEPS)} %: ${shorten(generation.prompt)}` : "");
  }

  #showActions(item, generation) {
    const { id, state } = generation;
    item.state = state;
    const isFailed = state === "GENERATION_STATE_FAILED";
    item.root.classList.toggle("failed", isFailed);
    const name = shorten(generation.prompt);
    const buttons = isFailed
      ? [button("Try again", `Try again: ${name}`, () => retryTake(id)), button("Dismiss", `Dismiss: ${name}`, () => this.#drop(id))]
      : [button("Cancel", `Cancel: ${name}`, () => cancelTake(id))];
    item.actions.replaceChildren(...buttons);
  }

  #drop(id) {
    const item = this.#items.get(id);
    if (!item) return;
    const hadFocus = item.root.contains(document.activeElement);
    item.root.remove();
    for (const known of [this.#items, this.#queues, this.#spoken]) known.delete(id);
    this.#failed.delete(id);
    this.#count();
    if (hadFocus) (this.list.querySelector("button") ?? document.getElementById("prompt"))?.focus();
  }

  /** Shows the takes that came first; the history has all of them. */
  #count() {
    this.root.hidden = !this.#items.size;
    let index = 0;
    for (const { root } of this.#items.values()) root.hidden = index++ >= SHOWN;
    const hidden = this.#items.size - SHOWN;
    this.more.textContent = hidden > 0 ? `and ${hidden} more, in the history` : "";
  }

  #mark() {
    for (const [id, { root }] of this.#items) root.classList.toggle("selected", id === selectedId());
  }

  /** Has a text read aloud, once. */
  #say({ id }, text) {
    if (!text || this.#spoken.get(id) === text) return;
    this.#spoken.set(id, text);
    this.status.textContent = text;
  }
}

function button(text, label, onclick) {
  return element("button", { type: "button", class: "button small", "aria-label": label, onclick }, text);
}

function shorten(prompt) {
  const text = prompt.replace(/\s+/g, " ").trim();
  return text.length > 90 ? `${text.slice(0, 88)}…` : text;
}
