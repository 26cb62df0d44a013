// The address of the page says which take is selected: #/take/ID.

import { byId } from "./dom.js";
import { shorten } from "./formats.js";
import { icon } from "./icons.js";
import { emit, getTake, on, selectedId } from "./state.js";

const TAKE = /^#\/take\/([0-9a-f-]{36})$/i;
const SMALL = matchMedia("(max-width: 860px)");
const TITLE = "DGX Music Studio";
const TITLE_CHARACTERS = 60;
const VIEWS = ["compose", "now", "history"];
const ICONS = { compose: "compose", now: "wave", history: "history" };

/** The address of a take within the page. */
export function takeAddress(id) {
  return `#/take/${id}`;
}

function idInAddress() {
  return TAKE.exec(location.hash)?.[1].toLowerCase() ?? "";
}

function follow() {
  const id = idInAddress();
  if (id === selectedId()) return;
  emit("select", { id, show: true });
  if (!id) showView("history");
}

function write({ id }) {
  if (idInAddress() === id) return;
  // Going through a list leaves no trail: only the first selected take is an entry of the browser's history.
  const address = id ? takeAddress(id) : location.pathname + location.search;
  if (idInAddress() && id) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
}

/** The take comes first in the title, by which tabs and bookmarks are told apart. */
function entitle({ id }) {
  const prompt = shorten(getTake(id)?.prompt ?? "", TITLE_CHARACTERS);
  document.title = prompt ? `${prompt} · ${TITLE}` : TITLE;
}

/** Shows the selected take where only one view has room, and has it read. */
function showNow() {
  showView("now");
  // Not when the page is opened at a take: nobody has come from anywhere, and the ring would only puzzle.
  if (isSmall() && navigator.userActivation?.hasBeenActive) byId("now").focus({ preventScroll: true });
}

/** Shows one of the views where only one has room: "compose", "now" or "history". */
export function showView(view) {
  if (!VIEWS.includes(view)) return;
  document.body.dataset.view = view;
  for (const tab of document.querySelectorAll(".view-tabs [data-view]")) {
    tab.setAttribute("aria-pressed", String(tab.dataset.view === view));
  }
}

/** Whether only one view has room. */
export function isSmall() {
  return SMALL.matches;
}

/** Follows the address from now on. Call it when all parts of the page listen. */
export function startRouting() {
  addEventListener("hashchange", follow);
  addEventListener("popstate", follow);
  on("select", write);
  on("select", ({ id, show }) => show && id && showNow());
  on("select", entitle);
  on("changed", ({ generation }) => generation.id === selectedId() && entitle(generation));
  for (const tab of document.querySelectorAll(".view-tabs [data-view]")) {
    tab.prepend(icon(ICONS[tab.dataset.view], { size: 18 }));
    tab.addEventListener("click", () => showView(tab.dataset.view));
  }
  showView(idInAddress() ? "now" : "compose");
  follow();
}
