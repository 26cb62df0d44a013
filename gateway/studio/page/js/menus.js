// Menus that open beside a button, with the keys of a menu: arrows, Home, End, first letters, Escape.

import { element as el } from "./dom.js";

const MARGIN = 8;
const GAP = 4;

let open = null;

/**
 * Opens a menu at an element, or at a point {x, y}. An item is {label, icon?, run} or {label, href, download?}, each with
 * `kbd`, `danger` and `disabled` if wanted, or "-" for a line between groups. The focus returns where it was.
 */
export function openMenu(at, items, { label }) {
  closeMenu();
  const menu = el("div", { class: "menu", role: "menu", "aria-label": label, popover: "auto" });
  for (const item of items) menu.append(item === "-" ? el("hr", { role: "separator" }) : createItem(item));
  // In the landmark of what it belongs to, for those who go by landmarks.
  (at instanceof Element ? (at.closest("main > section") ?? document.body) : document.body).append(menu);
  open = { menu, before: document.activeElement };
  menu.showPopover();
  place(menu, at);
  menu.addEventListener("keydown", onKey);
  menu.addEventListener("toggle", ({ newState }) => newState === "closed" && finish(menu));
  entries(menu)[0]?.setAttribute("tabindex", "0");
  entries(menu)[0]?.focus();
}

/** Closes the menu that is open, if there is one. */
export function closeMenu() {
  open?.menu.hidePopover();
}

function finish(menu) {
  const had = menu.contains(document.activeElement) || document.activeElement === document.body;
  if (open?.menu === menu) {
    const { before } = open;
    open = null;
    if (had) before?.focus?.({ preventScroll: true });
  }
  menu.remove();
}

function createItem({ label, icon, run, href, download, kbd, danger, disabled }) {
  const properties = {
    role: "menuitem",
    tabindex: "-1",
    class: danger ? "danger" : null,
    "aria-disabled": disabled ? "true" : null,
  };
  const children = [icon, el("span", {}, label), kbd ? el("kbd", {}, kbd) : null];
  if (href)
    return el("a", { ...properties, href, download: download ?? true, onclick: () => closeMenu() }, ...children);
  const choose = () => {
    if (disabled) return;
    closeMenu();
    run();
  };
  return el("button", { ...properties, type: "button", onclick: choose }, ...children);
}

function entries(menu) {
  return [...menu.querySelectorAll("[role=menuitem]")];
}

function onKey(event) {
  const all = entries(event.currentTarget);
  const index = all.indexOf(document.activeElement);
  const goTo = { ArrowDown: index + 1, ArrowUp: index - 1 + all.length, Home: 0, End: all.length - 1 }[event.key];
  if (goTo !== undefined) all[goTo % all.length].focus();
  else if (event.key === "Tab") closeMenu();
  else if (/^\p{Letter}$/u.test(event.key)) {
    const begins = (entry) => entry.textContent.trim().toLowerCase().startsWith(event.key.toLowerCase());
    [...all.slice(index + 1), ...all].find(begins)?.focus();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

function place(menu, at) {
  const box = at instanceof Element ? at.getBoundingClientRect() : { left: at.x, right: at.x, top: at.y, bottom: at.y };
  const { offsetWidth: width, offsetHeight: height } = menu;
  const left = Math.max(MARGIN, Math.min(box.right - width, innerWidth - width - MARGIN));
  const below = box.bottom + GAP;
  const top = below + height + MARGIN > innerHeight ? Math.max(MARGIN, box.top - GAP - height) : below;
  menu.style.setProperty("left", `${left}px`);
  menu.style.setProperty("top", `${top}px`);
}
