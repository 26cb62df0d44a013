// The region #details: everything about the selected take.

import { call } from "../api.js";
import { byId, element as el } from "../dom.js";
import { describeTake, formatTime } from "../formats.js";
import { icon } from "../icons.js";
import { openMenu } from "../menus.js";
import { emit, getTake, on, putTake, selectedId } from "../state.js";
import { toast, toastError } from "../toasts.js";
import { createFileLink, downloadItems } from "./downloads.js";
import { allProperties, factGroups, furtherPrompts, sectionsOf } from "./facts.js";
import { createLineage } from "./lineage_tree.js";
import { createStarField, rate } from "../history/rating.js";
import { takeItems } from "../history/take_actions.js";

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied.`);
  } catch {
    toast(`The browser does not let the page copy. ${what}: ${text}`);
  }
}

function createFact({ name, value, note, copy: copied }) {
  const button = copied
    ? el(
        "button",
        { type: "button", class: "icon-button tiny", "aria-label": `Copy ${name}`, onclick: () => copy(copied, name) },
        icon("copy", { size: 12 }),
      )
    : null;
  const shown = el(
    "dd",
    { class: copied ? "copied" : null },
    el("span", { class: "written", dir: "auto" }, value),
    button,
    note ? el("span", { class: "help written", dir: "auto" }, note) : null,
  );
  return [el("dt", {}, name), shown];
}

function createGroups(generation) {
  const groups = factGroups(generation).map(({ title, facts }) =>
    el("section", { class: "fact-group" }, el("h3", {}, title), el("dl", {}, ...facts.flatMap(createFact))),
  );
  return el("div", { class: "fact-groups" }, ...groups);
}

function createPrompts(generation) {
  const block = (title, text) =>
    el(
      "section",
      {},
      el("h3", {}, title),
      el(
        "div",
        { class: "full-prompt written", dir: "auto", tabindex: "0", role: "region", "aria-label": title },
        text,
      ),
    );
  return furtherPrompts(generation).map(({ title, text }) => block(title, text));
}

function createSections(generation) {
  const sections = sectionsOf(generation);
  if (!sections.length) return null;
  const line = ({ from, to, text }) => {
    const times = `${formatTime(from)}–${Number.isFinite(to) ? formatTime(to) : ""}`;
    const jump = el(
      "button",
      {
        type: "button",
        class: "button quiet small time",
        "aria-label": `Play from ${formatTime(from)}`,
        onclick: () => emit("seek", { seconds: from }),
      },
      times,
    );
    return el("li", {}, jump, el("span", { class: "written", dir: "auto" }, text));
  };
  return el("section", {}, el("h3", {}, "Sections"), el("ol", { class: "section-list" }, ...sections.map(line)));
}

function createProperties(generation) {
  const rows = allProperties(generation).map(([name, value]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", class: "written" }, name),
      el("td", { class: "written", dir: "auto" }, value),
    ),
  );
  if (!rows.length) return null;
  const table = el(
    "table",
    {},
    el("caption", { class: "visually-hidden" }, "All properties"),
    el("tbody", {}, ...rows),
  );
  return el(
    "details",
    { class: "more" },
    el("summary", {}, `All ${rows.length} properties`),
    el("div", { class: "all-tags", tabindex: "0", role: "region", "aria-label": "All properties" }, table),
  );
}

/** Fills #details with the selected take and keeps it as it is. */
export class DetailsView {
  #region;
  #history;
  #stars = createStarField((rating) => rate(selectedId(), rating));
  #shown = "";
  #abort = new AbortController();
  #lineage = el("section", { hidden: true });

  constructor(region, history) {
    this.#region = region;
    this.#history = history;
    on("select", ({ id }) => this.#select(id));
    on("changed", ({ generation }) => {
      if (generation.id === selectedId()) this.#show(generation);
      else if (generation.parents?.some(({ id }) => this.#lineageIds.has(id))) this.#loadLineage(selectedId());
    });
  }

  #lineageIds = new Set();

  async #select(id) {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#lineage = el("section", { hidden: true });
    this.#lineageIds = new Set([id]);
    this.#shown = "";
    if (!id) return this.#region.replaceChildren();
    const generation = getTake(id);
    if (generation) this.#show(generation);
    else await this.#load(id);
    if (id === selectedId() && getTake(id)) this.#loadLineage(id);
    return undefined;
  }

  async #load(id) {
    try {
      putTake((await call("GetGeneration", { id }, { signal: this.#abort.signal })).generation);
    } catch (error) {
      if (error.name === "AbortError") return;
      const text =
        error.code === "NOT_FOUND"
          ? "This take is not there any more: it was deleted, or the link is wrong."
          : error.message;
      this.#region.replaceChildren(el("p", { class: "notice error written" }, text));
    }
  }

  #show(generation) {
    this.#stars.update(generation.rating);
    const { rating, progress, stage, ...rest } = generation;
    const shown = JSON.stringify(rest);
    if (shown === this.#shown) return; // The focus stays where it is while a take is rated or goes on.
    this.#shown = shown;
    const isOpen = this.#region.querySelector("details.more")?.open ?? false;
    const properties = createProperties(generation);
    if (properties) properties.open = isOpen;
    byId("take-actions").replaceChildren(this.#createActions(generation));
    const parts = [
      ...createPrompts(generation),
      createSections(generation),
      createGroups(generation),
      this.#lineage,
      properties,
    ];
    this.#region.replaceChildren(...parts.filter(Boolean));
    this.#region.setAttribute("aria-label", describeTake(generation));
  }

  #createActions(generation) {
    const { id, state } = generation;
    const button = (label, name, run, properties = {}) =>
      el("button", { type: "button", class: "button", onclick: run, ...properties }, icon(name), label);
    const buttons = [];
    if (state === "GENERATION_STATE_COMPLETED") {
      buttons.push(
        createFileLink(generation),
        button(
          "Save as…",
          "download",
          ({ currentTarget }) => openMenu(currentTarget, downloadItems(generation), { label: "Save as" }),
          { "aria-haspopup": "menu" },
        ),
        button("Compare", "compare", () => emit("compare-add", { id }), { "aria-label": "Add to the comparison" }),
      );
    }
    const more = (event) =>
      openMenu(event.currentTarget, takeItems(getTake(id) ?? generation, this.#history), {
        label: "What to do with this take",
      });
    buttons.push(button("More", "more", more, { class: "button more-actions", "aria-haspopup": "menu" }));
    return el("div", { class: "details-actions" }, this.#stars.element, el("span", { class: "spacer" }), ...buttons);
  }

  async #loadLineage(id) {
    const section = this.#lineage;
    try {
      const tree = await createLineage(id, { signal: this.#abort.signal });
      if (section !== this.#lineage) return;
      section.hidden = !tree;
      if (!tree) return;
      for (const item of tree.querySelectorAll("[data-id]")) this.#lineageIds.add(item.dataset.id);
      section.replaceChildren(el("h3", {}, "Lineage"), tree);
    } catch (error) {
      if (error.code !== "NOT_FOUND") toastError(error, "The lineage could not be loaded");
    }
  }
}

/** Fills #details; `history` is the HistoryView. */
export function start(history) {
  return new DetailsView(byId("details"), history);
}
