// The region #history: search, the list, and what its rows do.

import { call } from "../api.js";
import { byId, element as el } from "../dom.js";
import { icon } from "../icons.js";
import { openMenu } from "../menus.js";
import { isSmall, showView, takeAddress } from "../routing.js";
import { emit, getTake, on, selectedId } from "../state.js";
import { toast } from "../toasts.js";
import { deleteTakes } from "./deletion.js";
import { FilterForm } from "./filter_form.js";
import { registerHistoryKeys } from "./history_keys.js";
import { MarkedTakes } from "./marked_takes.js";
import { rate } from "./rating.js";
import { takeItems } from "./take_actions.js";
import { TakeList, requestOf } from "./take_list.js";
import { TakeRow } from "./take_row.js";
import { VirtualList } from "./virtual_list.js";

const REFRESH_MS = 20000;
const AGES_MS = 30000;

/** Puts the history into its region and keeps it up to date. */
export class HistoryView {
  list = new TakeList();
  form = new FilterForm();
  marks = new MarkedTakes(this.list);
  #rows = new WeakMap();
  #total = null;
  #playing = "";

  constructor(region) {
    this.count = el("span", { class: "count figures", role: "status" });
    this.state = el("div", { class: "list-state" });
    this.grid = el("div", {
      class: "take-grid",
      role: "grid",
      "aria-label": "Takes, newest first",
      "aria-readonly": "true",
    });
    this.scroller = el("div", { class: "take-scroller" }, this.grid, this.state);
    const title = byId("history-title");
    const head = el(
      "div",
      { class: "history-head" },
      el("div", { class: "history-title" }, title, this.count),
      this.form.search,
      this.form.panel,
      this.marks.element,
    );
    region.append(head, this.scroller);
    this.virtual = new VirtualList(this.scroller, this.grid, {
      createRow: () => this.#createRow(),
      updateRow: (element, id) => this.#update(element, id),
      releaseRow: (element) => this.#rows.get(element).release(),
    });
    this.#listen();
    registerHistoryKeys(this);
  }

  /** Loads the first page. */
  start() {
    this.form.loadModels();
    this.list.setFilters(this.form.filters);
    this.#loadTotal();
    setInterval(() => document.hidden || this.#lookForOthers(), REFRESH_MS);
    setInterval(() => document.hidden || this.#updateAll(), AGES_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.#lookForOthers());
  }

  /** Selects a take. On a small display this shows it. */
  select(id) {
    this.virtual.goTo(id);
    emit("select", { id, show: isSmall() });
  }

  /** Plays a take, or pauses it if it is the one that plays. */
  play(id) {
    this.virtual.goTo(id);
    if (id === this.#playing) return emit("toggle");
    if (id !== selectedId()) emit("select", { id });
    return emit("play", { id });
  }

  /** Opens the menu of a take at an element or a point. */
  openMenu(id, at) {
    const generation = getTake(id);
    if (generation) openMenu(at, takeItems(generation, this), { label: "What to do with this take" });
  }

  /** Where a menu for a take opens: at its row, or else at the details of the selected one. */
  menuPlace(id) {
    const button = this.virtual.row(id)?.querySelector(".row-end > button");
    const isShown = (element) => element?.getClientRects().length > 0;
    return [button, byId("take-actions")?.querySelector(".more-actions"), byId("now")].find(isShown) ?? document.body;
  }

  /** Deletes the marked takes if this is one of them, or else this one. */
  delete(id) {
    const ids = this.marks.has(id) ? this.list.ids.filter((one) => this.marks.has(one)) : [id];
    return deleteTakes(ids, this.list);
  }

  /** Copies the address of a take. */
  async copyAddress(id) {
    try {
      await navigator.clipboard.writeText(new URL(takeAddress(id), location.href).href);
      toast("The link to this take is copied.");
    } catch {
      toast("The browser does not let the page copy; take the address from its address bar.", { kind: "error" });
    }
  }

  #createRow() {
    const row = new TakeRow({
      rate: (id, rating) => rate(id, rating),
      mark: (id, isMarked) => this.marks.toggle(id, isMarked),
      play: (id) => this.play(id),
      select: (id) => this.select(id),
      menu: (id, at) => this.openMenu(id, at),
    });
    this.#rows.set(row.element, row);
    return row.element;
  }

  #update(element, id) {
    const generation = getTake(id);
    if (!generation) return;
    const shown = { isSelected: id === selectedId(), isMarked: this.marks.has(id), isPlaying: id === this.#playing };
    this.#rows.get(element).update(generation, shown);
  }

  #updateAll() {
    for (const id of this.virtual.shownIds) this.virtual.update(id);
  }

  #listen() {
    let selected = "";
    this.list.addEventListener("change", () => this.#show());
    this.form.addEventListener("change", () => {
      this.scroller.scrollTop = 0;
      this.list.setFilters(this.form.filters);
    });
    this.marks.addEventListener("change", ({ detail: { id } }) => (id ? this.virtual.update(id) : this.#updateAll()));
    this.virtual.addEventListener("near-end", () => this.list.error || this.list.loadMore());
    this.virtual.addEventListener("activate", ({ detail: { id } }) => this.select(id));
    on("changed", ({ generation }) => {
      this.list.take(generation);
      this.virtual.update(generation.id);
    });
    on("deleted", ({ id }) => {
      this.list.hide(id);
      this.#loadTotal();
    });
    on("select", ({ id }) => {
      for (const one of [selected, id]) this.virtual.update(one);
      selected = id;
    });
    on("playing", ({ id }) => {
      const before = this.#playing;
      this.#playing = id ?? "";
      for (const one of [before, this.#playing]) this.virtual.update(one);
    });
    on("theme", () => {
      for (const id of this.virtual.shownIds) this.#rows.get(this.virtual.row(id)).redraw();
    });
  }

  #show() {
    const { ids, isComplete, isLoading, error } = this.list;
    const isFiltered = Object.keys(requestOf(this.list.filters)).length > 0;
    const total = isComplete ? ids.length : isFiltered ? null : this.#total;
    this.grid.setAttribute("aria-rowcount", String(total ?? -1));
    this.grid.setAttribute("aria-busy", String(isLoading));
    this.grid.hidden = !ids.length;
    const known =
      total === null
        ? `${ids.length.toLocaleString()}${isComplete ? "" : "+"}`
        : Math.max(total, ids.length).toLocaleString();
    this.count.textContent =
      isLoading && !ids.length ? "Loading…" : `${known} ${isFiltered ? "found" : total === 1 ? "take" : "takes"}`;
    this.virtual.setIds(ids);
    this.state.replaceChildren(...this.#describeState({ ids, isLoading, isFiltered, error }));
  }

  #describeState({ ids, isLoading, isFiltered, error }) {
    const button = (label, run) => el("button", { type: "button", class: "button small", onclick: run }, label);
    if (error)
      return [
        el("p", { class: "written" }, `The list could not be loaded: ${error.message}`),
        button("Try again", () => this.list.loadMore()),
      ];
    if (isLoading) return ids.length ? [el("p", {}, "Loading more…")] : [];
    if (ids.length) return [];
    if (isFiltered)
      return [el("p", {}, "No take matches."), button("Clear search and filters", () => this.form.clear())];
    const compose = () => {
      showView("compose");
      byId("prompt")?.focus();
    };
    return [
      icon("wave", { size: 32 }),
      el("p", {}, "What you generate is kept here, to hear again, rate and compare."),
      button("Describe some music", compose),
    ];
  }

  async #lookForOthers() {
    try {
      await this.list.refresh();
      await this.#loadTotal();
    } catch {
      // The server's state is told elsewhere; it is asked again soon.
    }
  }

  async #loadTotal() {
    try {
      const total = Number((await call("GetStatistics", { days: 1 })).totalGenerations);
      if (total === this.#total) return;
      this.#total = total;
      this.#show();
    } catch {
      // Without it, the list counts what it has loaded.
    }
  }
}

/** Fills #history. */
export function start() {
  const view = new HistoryView(byId("history"));
  view.start();
  return view;
}
