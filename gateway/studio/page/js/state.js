// What the page knows and its parts tell each other: the bus, the takes heard of so far, and which one is selected.

/** Carries the events of the page. Not `document`: `select` is also a native event, which bubbles from text fields. */
export const bus = new EventTarget();

/** Sends an event to all parts of the page. */
export function emit(type, detail = {}) {
  bus.dispatchEvent(new CustomEvent(type, { detail }));
}

/** Calls `listener(detail)` for each event of a type; returns a function that ends it. */
export function on(type, listener) {
  const handle = (event) => listener(event.detail);
  bus.addEventListener(type, handle);
  return () => bus.removeEventListener(type, handle);
}

const FINISHED = new Set(["GENERATION_STATE_COMPLETED", "GENERATION_STATE_FAILED", "GENERATION_STATE_CANCELLED"]);
const takes = new Map();
let selected = "";

/** Whether a generation will not change its state by itself any more. */
export function isFinished(generation) {
  return FINISHED.has(generation.state);
}

/** The generation with this id as it was heard of last, or undefined. */
export function getTake(id) {
  return takes.get(id);
}

/** All generations that the page has heard of. */
export function allTakes() {
  return [...takes.values()];
}

/** Remembers a generation and tells all parts of the page if anything about it, or its place in the queue, is new. */
export function putTake(generation, queue) {
  const known = takes.get(generation.id);
  if (!queue && known && JSON.stringify(known) === JSON.stringify(generation)) return;
  emit("changed", { generation, queue });
}

/** The id of the selected take; empty if there is none. */
export function selectedId() {
  return selected;
}

// These are the first listeners, so that all others find the new state.
on("changed", ({ generation }) => {
  takes.set(generation.id, generation);
});
on("deleted", ({ id }) => {
  takes.delete(id);
  if (selected === id) emit("select", { id: "" });
});
on("select", ({ id, generation }) => {
  if (generation) takes.set(generation.id, generation);
  selected = id;
});
