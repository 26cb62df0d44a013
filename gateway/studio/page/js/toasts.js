// Short messages at the foot of the page, which are read aloud and go away by themselves.

import { element as el } from "./dom.js";
import { icon } from "./icons.js";
import { on } from "./state.js";

const SHOWN_MS = 6000;
const SHOWN_WITH_ACTION_MS = 10000;
const MOST = 3;

let region;
let undo = null;

function regionElement() {
  if (!region) {
    region = el("div", { class: "toasts", role: "status", "aria-live": "polite", "aria-label": "Messages" });
    document.body.append(region);
  }
  return region;
}

/**
 * Shows a message. With an action, a button runs it; while it is shown, so does `runLastAction`. Returns a function that
 * takes the message away. It stays for as long as the pointer or the focus is on it. With `isBusy`, it shows that work is
 * going on, and for how long.
 */
export function toast(text, { action = null, kind = "", milliseconds = 0, isBusy = false } = {}) {
  const shownFor = milliseconds || (action ? SHOWN_WITH_ACTION_MS : SHOWN_MS);
  const message = el("div", { class: `toast ${kind}` }, el("span", { class: "written", dir: "auto" }, text));
  const stopClock = isBusy ? addClock(message) : () => {};
  const handle = action ? { run: () => finish(action.run) } : null;
  let timer = 0;

  function finish(work) {
    clearTimeout(timer);
    stopClock();
    message.remove();
    if (undo === handle) undo = null;
    work?.();
  }
  function wait() {
    clearTimeout(timer);
    timer = setTimeout(() => finish(), shownFor);
  }

  if (action) {
    message.append(el("button", { type: "button", class: "button small", onclick: handle.run }, action.label));
    undo = handle;
  }
  const dismiss = { type: "button", class: "icon-button small", "aria-label": "Dismiss", onclick: () => finish() };
  message.append(el("button", dismiss, icon("close")));
  for (const held of ["pointerenter", "focusin"]) message.addEventListener(held, () => clearTimeout(timer));
  for (const left of ["pointerleave", "focusout"]) message.addEventListener(left, wait);
  regionElement().append(message);
  while (region.childElementCount > MOST) region.firstElementChild.remove();
  wait();
  return () => finish();
}

/** Adds a turning circle and the seconds that pass, which are not read aloud. Returns a function that stops it. */
function addClock(message) {
  const seconds = el("span", {}, "0 s");
  message.prepend(el("span", { class: "busy", "aria-hidden": "true" }, el("span", { class: "turning" }), seconds));
  const start = performance.now();
  const tick = setInterval(() => {
    seconds.textContent = `${Math.round((performance.now() - start) / 1000)} s`;
  }, 1000);
  return () => clearInterval(tick);
}

/** Runs the action of the newest message that offers one; returns whether there was one. */
export function runLastAction() {
  if (!undo) return false;
  undo.run();
  return true;
}

/** Shows the message of an error, which may be an ApiError or any other. */
export function toastError(error, before = "") {
  if (error?.name === "AbortError") return;
  const text = error?.message || String(error);
  toast(before ? `${before}: ${text}` : text, { kind: "error", milliseconds: SHOWN_WITH_ACTION_MS });
}

/** Makes the region before the first message: screen readers read what changes in it. */
export function startToasts() {
  regionElement();
  on("toast", ({ text, ...options }) => toast(text, options));
}
