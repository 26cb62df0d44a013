// Starts the comparison: its button, its keys, and the events by which the page opens it.

import { byId, element } from "../dom.js";
import { icon } from "../icons.js";
import { showView } from "../routing.js";
import { registerShortcut } from "../shortcuts.js";
import { emit, on } from "../state.js";
import { compareIds, setCompareIds } from "./basket.js";
import { MIN_TAKES } from "./comparison.js";
import { CompareView } from "./view.js";

export { compareIds };

const SKIP_SECONDS = 5;

/** Fills #compare. */
export function startCompare() {
  const root = byId("compare");
  let returnTo = null;
  const view = new CompareView(root, { onClose: close });
  const button = startButton();

  function open() {
    if (!view.isOpen) returnTo = document.activeElement;
    document.body.dataset.compare = "open";
    showView("now");
    view.open(compareIds());
    view.title.focus();
  }

  function hide() {
    view.hide();
    delete document.body.dataset.compare;
  }

  function close() {
    if (!view.isOpen) return;
    hide();
    view.unload();
    (returnTo?.isConnected ? returnTo : button).focus();
  }

  on("compare-open", ({ ids }) => {
    if (ids) setCompareIds(ids);
    open();
  });
  on("compare-changed", ({ ids }) => {
    if (!view.isOpen) return;
    if (ids.length >= MIN_TAKES) view.open(ids);
    else close();
  });
  on("select", ({ id }) => id && view.isOpen && hide());
  on("quiet", ({ owner }) => owner !== "compare" && view.pause());
  on("theme", () => view.plots.draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view.plots.draw());
  registerKeys(view, close);
}

function startButton() {
  const open = () => emit("compare-open");
  const count = element("span", { class: "compare-count" });
  const button = element("button", { type: "button", class: "button", id: "compare-button", onclick: open }, icon("compare"), element("span", { class: "compare-word" }, "Compare"), count);
  const show = () => {
    const number = compareIds().length;
    button.hidden = number === 0;
    count.textContent = String(number);
    button.setAttribute("aria-label", `Compare ${number} ${number === 1 ? "take" : "takes"}`);
  };
  show();
  on("compare-changed", show);
  byId("top-actions").prepend(button);
  return button;
}

function registerKeys(view, close) {
  const isElsewhere = () => byId("history").contains(document.activeElement); // Its list has keys of its own.
  const when = () => view.isOpen && view.comparison !== null && !isElsewhere();
  const add = (keys, label, run) => registerShortcut({ keys, label, run, when, group: "Compare", priority: 20 });
  add(["1", "2", "3", "4"], "Hear take A to D", (event) => view.selectPlace(Number(event.key) - 1));
  add(["ArrowRight"], "Hear the next take", () => view.step(1));
  add(["ArrowLeft"], "Hear the take before", () => view.step(-1));
  add([" "], "Play or pause", () => view.toggle());
  add([","], `Go back ${SKIP_SECONDS} s`, () => view.skip(-SKIP_SECONDS));
  add(["."], `Go on ${SKIP_SECONDS} s`, () => view.skip(SKIP_SECONDS));
  add(["Home"], "Go to the beginning", () => view.seek(0));
  add(["l"], "Loop", () => view.loop.toggle());
  add(["["], "Loop from here", () => view.loop.setEnd(0));
  add(["]"], "Loop to here", () => view.loop.setEnd(1));
  add(["Shift+ArrowUp"], "Rank what is heard higher", () => view.rank(-1));
  add(["Shift+ArrowDown"], "Rank what is heard lower", () => view.rank(1));
  add(["b"], "Blind or not", () => view.setBlind(!view.comparison.isBlind));
  registerShortcut({ keys: ["Escape"], label: "Close the comparison", group: "Compare", priority: 20, when: () => view.isOpen, run: close });
}
