// Search and filters of the list.

import { call } from "../api.js";
import { element as el } from "../dom.js";
import { formatKey, stateName } from "../formats.js";
import { icon } from "../icons.js";
import { NO_FILTERS, requestOf } from "./take_list.js";

const DEBOUNCE_MS = 250;
const STATES = ["COMPLETED", "PROCESSING", "PENDING", "FAILED", "CANCELLED"].map((name) => `GENERATION_STATE_${name}`);
const TONICS = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"];
const [MIN_BPM, MAX_BPM] = [20, 400];

let number = 0;

function field(label, control) {
  const id = `filter-${(number += 1)}`;
  control.id = id;
  return el("div", { class: "field" }, el("label", { for: id }, label), control);
}

function select(options) {
  return el("select", {}, ...options.map(([value, text]) => el("option", { value }, text)));
}

/** Midnight of a day in this time zone, as a time of the contracts; `after` days later. */
function startOfDay(day, after = 0) {
  if (!day) return "";
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date + after).toISOString();
}

/** The search field and the filters. Sends "change" when `filters` has changed; typing waits for a pause. */
export class FilterForm extends EventTarget {
  filters = { ...NO_FILTERS };
  #timer = 0;
  #controls;

  constructor() {
    super();
    const tempo = (label) =>
      el("input", {
        type: "number",
        min: String(MIN_BPM),
        max: String(MAX_BPM),
        step: "1",
        inputmode: "numeric",
        "aria-label": label,
      });
    const keys = TONICS.flatMap((tonic) => ["major", "minor"].map((mode) => `${tonic} ${mode}`));
    const c = (this.#controls = {
      search: el("input", {
        type: "search",
        placeholder: "Search the prompts",
        "aria-label": "Search the prompts",
        maxlength: "1000",
        autocomplete: "off",
        spellcheck: "false",
        dir: "auto",
      }),
      model: select([["", "All models"]]),
      state: select([["", "All"], ...STATES.map((state) => [state, stateName(state)])]),
      rating: select([
        ["0", "All"],
        ...[1, 2, 3, 4, 5].map((stars) => [String(stars), stars === 5 ? "5 stars" : `${stars} or more`]),
      ]),
      key: select([["", "All keys"], ...keys.map((key) => [key, formatKey(key)])]),
      minBpm: tempo("Lowest tempo in BPM"),
      maxBpm: tempo("Highest tempo in BPM"),
      after: el("input", { type: "date", "aria-label": "From this day" }),
      before: el("input", { type: "date", "aria-label": "To this day" }),
    });
    const between = (from, to) => el("div", { class: "between" }, from, el("span", { "aria-hidden": "true" }, "–"), to);
    const group = (label, ...children) =>
      el(
        "div",
        { class: "field", role: "group", "aria-label": label },
        el("span", { class: "label" }, label),
        ...children,
      );
    this.#number = el("span", { class: "number" });
    this.toggle = el(
      "button",
      {
        type: "button",
        class: "button",
        "aria-expanded": "false",
        "aria-controls": "filters",
        onclick: () => this.show(this.panel.hidden),
      },
      icon("filter"),
      "Filters",
      this.#number,
    );
    this.search = el("div", { class: "history-search", role: "search" }, c.search, this.toggle);
    this.panel = el(
      "div",
      { class: "filters", id: "filters", hidden: true, role: "group", "aria-label": "Filters" },
      el(
        "div",
        { class: "fields" },
        field("Model", c.model),
        field("State", c.state),
        field("Rating", c.rating),
        field("Key", c.key),
        group("Tempo (BPM)", between(c.minBpm, c.maxBpm)),
      ),
      group("Day", between(c.after, c.before)),
      el(
        "div",
        { class: "toolbar" },
        el("span", { class: "spacer" }),
        el("button", { type: "button", class: "button small", onclick: () => this.clear() }, "Clear all"),
      ),
    );
    for (const control of Object.values(c)) {
      control.addEventListener(control.matches("select") ? "change" : "input", () => this.#schedule());
    }
  }

  #number;

  /** Opens or closes the filters. */
  show(isShown) {
    this.panel.hidden = !isShown;
    this.toggle.setAttribute("aria-expanded", String(isShown));
    if (isShown) this.#controls.model.focus();
  }

  /** Puts the focus into the search field. */
  focusSearch() {
    this.#controls.search.focus();
    this.#controls.search.select();
  }

  /** Sets everything back. */
  clear() {
    for (const [name, control] of Object.entries(this.#controls)) control.value = name === "rating" ? "0" : "";
    this.#read();
  }

  /** Offers the installed models, and those whose takes are there although they are gone. */
  async loadModels() {
    const { model } = this.#controls;
    const answers = await Promise.allSettled([call("ListModels"), call("GetStatistics")]);
    const names = new Set(answers.flatMap(({ value }) => value?.models ?? []).map((one) => one.name ?? one.modelName));
    const known = new Set([...model.options].map(({ value }) => value));
    for (const name of [...names].filter((one) => one && !known.has(one)).sort())
      model.append(el("option", { value: name }, name));
  }

  #schedule() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#read(), DEBOUNCE_MS);
  }

  #read() {
    clearTimeout(this.#timer);
    const c = this.#controls;
    const bpm = (control) => (control.value && control.validity.valid ? Number(control.value) : 0);
    for (const control of [c.minBpm, c.maxBpm]) control.setAttribute("aria-invalid", String(!control.validity.valid));
    const filters = {
      promptContains: c.search.value.trim(),
      modelName: c.model.value,
      states: c.state.value ? [c.state.value] : [],
      minRating: Number(c.rating.value),
      key: c.key.value,
      minBpm: bpm(c.minBpm),
      maxBpm: bpm(c.maxBpm),
      createdAfter: startOfDay(c.after.value),
      createdBefore: startOfDay(c.before.value, 1),
    };
    if (JSON.stringify(filters) === JSON.stringify(this.filters)) return;
    this.filters = filters;
    const { promptContains, ...rest } = requestOf(filters);
    const count = Object.keys(rest).length;
    this.#number.textContent = count ? String(count) : "";
    this.toggle.setAttribute("aria-label", count ? `Filters, ${count} set` : "Filters");
    this.dispatchEvent(new Event("change"));
  }
}
