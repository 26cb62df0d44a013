// Which takes are to be compared: added one by one, kept while the tab is open.

import { emit, on } from "../state.js";
import { toast } from "../toasts.js";
import { MAX_TAKES } from "./comparison.js";

const KEY = "dgx-studio-compare";
let ids = read();
let dismiss = () => {}; // Takes the last message away.

/** The ids of the takes that are to be compared, in the order in which they were added. */
export function compareIds() {
  return [...ids];
}

/** Replaces them by the first MAX_TAKES different ones. */
export function setCompareIds(wanted) {
  const next = [...new Set(wanted)].slice(0, MAX_TAKES);
  if (next.join() === ids.join()) return;
  ids = next;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(ids));
  } catch {
    // The browser keeps nothing for this page; then it is forgotten when the page is loaded again.
  }
  emit("compare-changed", { ids: compareIds() });
}

function read() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one === "string").slice(0, MAX_TAKES) : [];
  } catch {
    return [];
  }
}

on("compare-add", ({ id }) => {
  if (ids.includes(id)) return;
  if (ids.length < MAX_TAKES) return add(id);
  return emit("toast", { text: `At most ${MAX_TAKES} takes can be compared at once; take one away first.`, kind: "error" });
});

function add(id) {
  setCompareIds([...ids, id]);
  if (document.body.dataset.compare === "open") return; // It is seen there.
  const action = ids.length > 1 ? { label: "Compare", run: () => emit("compare-open") } : null;
  dismiss();
  dismiss = toast(`Added to the comparison: ${ids.length} of at most ${MAX_TAKES} takes.`, { action });
}

on("compare-open", () => dismiss());
on("compare-remove", ({ id }) => setCompareIds(ids.filter((one) => one !== id)));
on("deleted", ({ id }) => setCompareIds(ids.filter((one) => one !== id)));
