// A list of any length of which only the rows in sight exist.

const OVERSCAN_ROWS = 6;
const LOAD_AHEAD_ROWS = 60;

/**
 * Shows rows of one height in a scrolling element, as an ARIA grid with a roving tab stop: one row can be reached by
 * Tab, and the arrow keys go from row to row. That row always exists, so that the focus is not lost by scrolling.
 *
 * `createRow(id)` returns an element; `updateRow(element, id)` is called when it is shown, and `releaseRow(element)` when
 * it is taken away. Sends "active" {id}, "near-end" and "activate" {id} (Enter).
 */
export class VirtualList extends EventTarget {
  #scroller;
  #grid;
  #rows = new Map();
  #ids = [];
  #indexes = new Map();
  #activeId = "";
  #rowHeight = 72;
  #frame = 0;
  #make;

  constructor(scroller, grid, { createRow, updateRow, releaseRow }) {
    super();
    this.#scroller = scroller;
    this.#grid = grid;
    this.#make = { createRow, updateRow, releaseRow };
    scroller.addEventListener("scroll", () => this.#schedule(), { passive: true });
    grid.addEventListener("keydown", (event) => this.#onKey(event));
    grid.addEventListener("focusin", ({ target }) => {
      const row = target.closest?.("[data-id]");
      if (row) this.#setActive(row.dataset.id);
    });
    new ResizeObserver(() => this.#schedule()).observe(scroller);
  }

  /** The id of the row that Tab reaches. */
  get activeId() {
    return this.#activeId;
  }

  /** The element of a row, or undefined if it does not exist now. */
  row(id) {
    return this.#rows.get(id);
  }

  /** The ids whose rows exist now. */
  get shownIds() {
    return [...this.#rows.keys()];
  }

  /** Shows these ids. What is in sight stays in sight when rows come or go above it. */
  setIds(ids) {
    const before = this.#ids;
    const isLonger = ids.length >= before.length && ids[0] === before[0] && ids[before.length - 1] === before.at(-1);
    const anchor = isLonger ? null : this.#anchor();
    const index = this.#indexes.get(this.#activeId) ?? 0;
    const hadFocus = this.#grid.contains(document.activeElement);
    this.#ids = [...ids];
    this.#indexes = new Map(ids.map((id, position) => [id, position]));
    if (!this.#indexes.has(this.#activeId)) this.#activeId = ids[Math.min(index, ids.length - 1)] ?? "";
    this.#measure();
    this.#grid.style.blockSize = `${ids.length * this.#rowHeight}px`;
    const moved = anchor ? this.#indexes.get(anchor.id) : undefined;
    if (moved !== undefined) this.#scroller.scrollTop = moved * this.#rowHeight + anchor.offset;
    this.render();
    if (hadFocus && !this.#grid.contains(document.activeElement)) this.focusActive();
  }

  /** Draws what is in sight. */
  render() {
    this.#frame = 0;
    const height = this.#scroller.clientHeight;
    if (!height) return;
    this.#measure();
    const top = this.#scroller.scrollTop;
    const first = Math.max(0, Math.floor(top / this.#rowHeight) - OVERSCAN_ROWS);
    const last = Math.min(this.#ids.length, Math.ceil((top + height) / this.#rowHeight) + OVERSCAN_ROWS);
    const wanted = new Set(this.#ids.slice(first, last));
    if (this.#indexes.has(this.#activeId)) wanted.add(this.#activeId);
    for (const [id, row] of this.#rows) {
      if (!wanted.has(id)) this.#release(id, row);
    }
    for (const id of wanted) this.#place(id);
    if (last > this.#ids.length - LOAD_AHEAD_ROWS) this.dispatchEvent(new Event("near-end"));
  }

  /** Draws a row again if it exists. */
  update(id) {
    const row = this.#rows.get(id);
    if (row) this.#make.updateRow(row, id);
  }

  /** Makes a row the one that Tab reaches, brings it into sight, and puts the focus on it if wanted. */
  goTo(id, { focus = false } = {}) {
    const index = this.#indexes.get(id);
    if (index === undefined) return;
    this.#setActive(id);
    const top = index * this.#rowHeight;
    const { scrollTop, clientHeight } = this.#scroller;
    if (top < scrollTop) this.#scroller.scrollTop = top;
    else if (top + this.#rowHeight > scrollTop + clientHeight) {
      this.#scroller.scrollTop = top + this.#rowHeight - clientHeight;
    }
    this.render();
    if (focus) this.#rows.get(id)?.focus({ preventScroll: true });
  }

  /** Goes on by a number of rows, or to the first or the last for ±Infinity. */
  move(by, { focus = true } = {}) {
    const from = this.#indexes.get(this.#activeId) ?? -1;
    const index = Math.max(0, Math.min(this.#ids.length - 1, from + by));
    if (this.#ids.length) this.goTo(this.#ids[index], { focus });
  }

  /** Puts the focus on the row that Tab reaches. */
  focusActive() {
    this.#rows.get(this.#activeId)?.focus({ preventScroll: true });
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox])")) return;
    const page = Math.max(1, Math.floor(this.#scroller.clientHeight / this.#rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const row = event.target.closest("[data-id]");
    if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "ArrowRight") this.#moveWithin(row, event.target, 1);
    else if (event.key === "ArrowLeft") this.#moveWithin(row, event.target, -1);
    else if (event.key === "Enter" && event.target === row) {
      this.dispatchEvent(new CustomEvent("activate", { detail: { id: row.dataset.id } }));
    } else return;
    event.preventDefault();
  }

  #moveWithin(row, from, by) {
    if (!row) return;
    const isShown = (control) => control.getClientRects().length > 0 && !control.disabled;
    const stops = [row, ...[...row.querySelectorAll("button, input, a[href]")].filter(isShown)];
    const index = stops.indexOf(from) + by;
    if (index >= 0) stops[Math.min(index, stops.length - 1)].focus({ preventScroll: true });
  }

  #setActive(id) {
    if (id === this.#activeId) return;
    this.#rows.get(this.#activeId)?.setAttribute("tabindex", "-1");
    this.#activeId = id;
    this.#rows.get(id)?.setAttribute("tabindex", "0");
    this.dispatchEvent(new CustomEvent("active", { detail: { id } }));
  }

  #place(id) {
    const index = this.#indexes.get(id);
    let row = this.#rows.get(id);
    if (!row) {
      row = this.#make.createRow(id);
      row.dataset.id = id;
      this.#rows.set(id, row);
      // In the order of the list, in which screen readers read. Rows that exist stay: a row that moves loses the focus.
      const isAfter = (other) => this.#indexes.get(other.dataset.id) > index;
      this.#grid.insertBefore(row, [...this.#grid.children].find(isAfter) ?? null);
      this.#make.updateRow(row, id);
    }
    const place = `translateY(${index * this.#rowHeight}px)`;
    if (row.style.transform !== place) row.style.transform = place;
    row.setAttribute("aria-rowindex", String(index + 1));
    row.setAttribute("tabindex", id === this.#activeId ? "0" : "-1");
  }

  #release(id, row) {
    this.#rows.delete(id);
    this.#make.releaseRow(row);
    row.remove();
  }

  #measure() {
    const shown = getComputedStyle(this.#scroller).getPropertyValue("--row-height");
    const unit = parseFloat(getComputedStyle(document.documentElement).fontSize) || 16;
    this.#rowHeight = Math.max(24, (parseFloat(shown) || 4.5) * unit);
  }

  #anchor() {
    const top = this.#scroller.scrollTop;
    if (!top) return null;
    const index = Math.floor(top / this.#rowHeight);
    return this.#ids[index] ? { id: this.#ids[index], offset: top - index * this.#rowHeight } : null;
  }

  #schedule() {
    this.#frame ||= requestAnimationFrame(() => this.render());
  }
}
