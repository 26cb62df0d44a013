// The keys of the whole page, and the overlay that lists them.

import { isDialogOpen, openDialog } from "./dialogs.js";
import { element as el } from "./dom.js";

const KEY_NAMES = {
  " ": "Space",
  ArrowUp: "↑",
  ArrowDown: "↓",
  ArrowLeft: "←",
  ArrowRight: "→",
  Escape: "Esc",
  Delete: "Del",
  Backspace: "⌫",
  ContextMenu: "☰",
};
const GROUPS = ["Everywhere", "Takes", "Player", "Compare"];
const TEXT_INPUTS = new Set(["text", "search", "number", "date", "password", "url", "email", "range"]);

const shortcuts = [];

/**
 * Adds a key, or several that do the same. `keys` are KeyboardEvent.key values, with "Shift+" or "Ctrl+" before them
 * (Ctrl is also the Mac's ⌘). `when` says whether it applies now: of several that do, the one of the highest `priority`
 * runs. Without `run`, it is only listed: a part of the page handles it itself. Returns a function that removes it.
 */
export function registerShortcut({
  keys,
  label,
  group = "Everywhere",
  when = () => true,
  run = null,
  priority = 0,
  inDialog = false,
}) {
  const shortcut = { keys, label, group, when, run, priority, inDialog };
  shortcuts.push(shortcut);
  shortcuts.sort((a, b) => b.priority - a.priority);
  return () => void shortcuts.splice(shortcuts.indexOf(shortcut), 1);
}

/** Whether a key that is pressed there is text, or belongs to the control. */
export function isTyping(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target.matches("textarea, select")) return true;
  return target.matches("input") && TEXT_INPUTS.has(target.type);
}

function nameOf(event) {
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  const shift = event.shiftKey && event.key.length > 1 ? "Shift+" : "";
  const key =
    event.key.length === 1 && !control ? event.key : event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return `${control}${shift}${key}`;
}

/** Buttons, links and the like do something of their own on Space and Enter. */
function isForControl(event) {
  if (event.key !== " " && event.key !== "Enter") return false;
  const control = "button, a[href], summary, input, select, textarea, [role=slider], [role=treeitem], [role=option]";
  return event.target instanceof Element && event.target.closest(control) !== null;
}

function handle(event) {
  if (event.defaultPrevented || event.isComposing || event.altKey) return;
  const isWritten = isTyping(event.target) && event.key !== "Escape";
  if (isWritten || isForControl(event)) return;
  const name = nameOf(event);
  const isBlocked = isDialogOpen();
  const found = shortcuts.find(
    (one) => one.run && one.keys.includes(name) && (one.inDialog || !isBlocked) && one.when(event),
  );
  if (!found) return;
  event.preventDefault();
  found.run(event);
}

function keyElements(keys) {
  const parts = keys.flatMap((name, index) => {
    const shown = name.replace(/[^+]+$/, (key) => KEY_NAMES[key] ?? (/^[A-Z]$/.test(key) ? `Shift+${key}` : key));
    return [index ? " " : "", el("kbd", {}, shown)];
  });
  return parts.filter(Boolean);
}

/** Shows all keys, by what they are for. */
export function showShortcuts() {
  const sections = groupShortcuts().map(([group, members]) =>
    el(
      "section",
      {},
      el("h3", {}, group),
      el(
        "dl",
        {},
        ...members.map(({ label, keys }) => el("div", {}, el("dt", {}, label), el("dd", {}, ...keyElements(keys)))),
      ),
    ),
  );
  return openDialog({ title: "Keys", body: [el("div", { class: "shortcuts" }, ...sections)], wide: true });
}

function groupShortcuts() {
  const groups = new Map(GROUPS.map((name) => [name, []]));
  for (const one of shortcuts) groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
  return [...groups].filter(([, members]) => members.length);
}

/** Begins to listen. */
export function startShortcuts() {
  document.addEventListener("keydown", handle);
  registerShortcut({ keys: ["?"], label: "Show these keys", run: () => void showShortcuts() });
}
