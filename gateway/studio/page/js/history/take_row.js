// One take in the list.

import { element as el } from "../dom.js";
import {
  describeTake,
  formatAgo,
  formatKey,
  formatTempo,
  formatTime,
  keyOf,
  lengthOf,
  shorten,
  stageName,
  stateName,
  tempoOf,
} from "../formats.js";
import { icon } from "../icons.js";
import { isFinished } from "../state.js";
import { createStars } from "./rating.js";
import { forgetThumbnail, showThumbnail } from "./thumbnails.js";

const SHOWN_CHARACTERS = 160;
const SVG_SIZE = 14;

/** A row: its element, and how a generation is shown in it. `actions` has what its controls do with the id. */
export class TakeRow {
  #parts = {};
  #id = "";

  constructor(actions) {
    const stars = createStars((rating) => actions.rate(this.#id, rating));
    const inert = { type: "button", tabindex: "-1" };
    const parts = (this.#parts = {
      stars,
      mark: el("input", {
        type: "checkbox",
        tabindex: "-1",
        onchange: ({ target }) => actions.mark(this.#id, target.checked),
      }),
      canvas: el("canvas", { "aria-hidden": "true" }),
      play: el(
        "button",
        { ...inert, class: "row-play", onclick: () => actions.play(this.#id) },
        el("span", {}, icon("play", { size: SVG_SIZE })),
      ),
      prompt: el("div", { class: "row-prompt", dir: "auto" }),
      facts: el("div", { class: "row-facts figures" }),
      more: el(
        "button",
        {
          ...inert,
          class: "icon-button small",
          "aria-haspopup": "menu",
          onclick: ({ currentTarget }) => actions.menu(this.#id, currentTarget),
        },
        icon("more"),
      ),
    });
    const cell = (name, ...children) => el("div", { class: name, role: "gridcell" }, ...children);
    this.element = el(
      "div",
      { class: "take-row", role: "row", tabindex: "-1" },
      cell("row-mark", parts.mark),
      cell("row-wave", parts.canvas, parts.play),
      cell("row-text", parts.prompt, parts.facts),
      cell("row-end", stars.element, parts.more),
    );
    this.element.addEventListener("click", ({ target }) => {
      if (!target.closest("button, input, a")) actions.select(this.#id);
    });
    this.element.addEventListener("dblclick", ({ target }) => {
      if (!target.closest("button, input, a")) actions.play(this.#id);
    });
    this.element.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      const point = event.button === 2 ? { x: event.clientX, y: event.clientY } : parts.more;
      actions.menu(this.#id, point);
    });
  }

  /** Shows a generation. */
  update(generation, { isSelected, isMarked, isPlaying }) {
    const { mark, play, prompt, facts, more, stars, canvas } = this.#parts;
    const name = shorten(generation.prompt, SHOWN_CHARACTERS);
    const isCompleted = generation.state === "GENERATION_STATE_COMPLETED";
    this.element.setAttribute("aria-selected", String(isSelected));
    this.element.setAttribute("aria-label", `${describeTake(generation)}${isMarked ? ", marked" : ""}`);
    prompt.textContent = name;
    const short = shorten(generation.prompt, 60);
    mark.checked = isMarked;
    mark.setAttribute("aria-label", `Mark “${short}”`);
    more.setAttribute("aria-label", `More for “${short}”`);
    play.setAttribute("aria-label", `${isPlaying ? "Pause" : "Play"} “${short}”`);
    play.firstElementChild.replaceChildren(icon(isPlaying ? "pause" : "play", { size: SVG_SIZE }));
    play.hidden = !isCompleted && isFinished(generation);
    stars.update(generation.rating);
    facts.replaceChildren(...factsOf(generation));
    if (this.#id !== generation.id || canvas.dataset.state !== generation.state) {
      this.#id = generation.id;
      Object.assign(canvas.dataset, { take: generation.id, state: generation.state });
      if (isCompleted) showThumbnail(canvas, generation.id);
      else canvas.hidden = true;
    }
  }

  /** Draws the waveform again, in the colours of another theme. */
  redraw() {
    const { canvas } = this.#parts;
    if (canvas.dataset.state === "GENERATION_STATE_COMPLETED") showThumbnail(canvas, this.#id);
  }

  /** Ends what was begun for it. */
  release() {
    forgetThumbnail(this.#parts.canvas);
  }
}

function factsOf(generation) {
  const age = el(
    "time",
    { datetime: generation.createdAt, title: new Date(generation.createdAt).toLocaleString() },
    formatAgo(generation.createdAt),
  );
  const length = el("span", {}, formatTime(lengthOf(generation)));
  if (generation.state === "GENERATION_STATE_PROCESSING") {
    const percent = Math.round(generation.progress * 100);
    const bar = el("progress", {
      max: "1",
      value: String(generation.progress),
      "aria-label": `${percent} % generated`,
    });
    return [el("span", { class: "badge live" }, stageName(generation)), bar, el("span", {}, `${percent} %`), length];
  }
  if (generation.state !== "GENERATION_STATE_COMPLETED") {
    const kind = { GENERATION_STATE_FAILED: "error", GENERATION_STATE_PENDING: "live" }[generation.state] ?? "";
    const badge = el(
      "span",
      { class: `badge ${kind}`, title: shorten(generation.errorMessage ?? "", 300) || null },
      stateName(generation.state),
    );
    return [badge, length, el("span", { class: "model written", dir: "auto" }, generation.modelName), age];
  }
  const rating = generation.rating
    ? el("span", { class: "rating-text" }, icon("star", { size: 12 }), String(generation.rating))
    : null;
  const texts = [formatTempo(tempoOf(generation)), shorten(formatKey(keyOf(generation)), 20)].filter(Boolean);
  return [
    length,
    ...texts.map((text) => el("span", { class: "written" }, text)),
    rating,
    el("span", { class: "model written", dir: "auto" }, generation.modelName),
    age,
  ].filter(Boolean);
}
