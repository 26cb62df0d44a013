// The keys of the history. Those for one take mean the row that has the focus, or else the selected take.

import { byId } from "../dom.js";
import { openMenu } from "../menus.js";
import { showView } from "../routing.js";
import { registerShortcut } from "../shortcuts.js";
import { nextTheme } from "../theme.js";
import { emit, getTake, selectedId } from "../state.js";
import { runLastAction, toast } from "../toasts.js";
import { downloadItems } from "../details/downloads.js";
import { MAX_RATING, rate } from "./rating.js";

/** Adds the keys; `view` is the HistoryView. */
export function registerHistoryKeys(view) {
  const isInList = () => view.grid.contains(document.activeElement);
  const currentId = () => (isInList() ? view.virtual.activeId : selectedId());
  const hasTake = () => Boolean(currentId());
  const group = "Takes";
  const go = (by) => () => {
    showView("history");
    if (isInList()) view.virtual.move(by);
    else if (view.virtual.activeId) view.virtual.goTo(view.virtual.activeId, { focus: true });
  };
  const ofTake = (keys, label, run) =>
    registerShortcut({ keys, label, group, when: hasTake, run: () => run(currentId()) });

  registerShortcut({
    keys: ["j", "ArrowDown"],
    label: "Next take",
    group,
    when: ({ key }) => key === "j" || isInList(),
    run: go(1),
  });
  registerShortcut({
    keys: ["k", "ArrowUp"],
    label: "Previous take",
    group,
    when: ({ key }) => key === "k" || isInList(),
    run: go(-1),
  });
  registerShortcut({ keys: ["Home", "End"], label: "First and last take", group });
  registerShortcut({ keys: ["Enter"], label: "Show the take", group });
  registerShortcut({
    keys: [" "],
    label: "Play or pause",
    group,
    run: () => (isInList() ? view.play(view.virtual.activeId) : emit("toggle")),
  });
  ofTake(["x"], "Mark", (id) => view.marks.toggle(id));
  ofTake(["c"], "Add to the comparison", (id) => emit("compare-add", { id }));
  registerShortcut({ keys: ["C"], label: "Compare the marked takes", group, run: () => view.marks.compare() });
  ofTake(["d"], "Save as…", (id) => {
    const generation = getTake(id);
    if (generation?.state !== "GENERATION_STATE_COMPLETED") return toast("Only a finished take can be saved.");
    return openMenu(view.menuPlace(id), downloadItems(generation), { label: "Save as" });
  });
  ofTake(["m", "ContextMenu"], "What else can be done with it", (id) => view.openMenu(id, view.menuPlace(id)));
  ofTake(["Delete", "Backspace"], "Delete", (id) => view.delete(id));
  registerShortcut({ keys: ["u", "Ctrl+z"], label: "Undo the deletion", group, run: () => runLastAction() });
  const ratings = Array.from({ length: MAX_RATING }, (_, index) => String(index + 1));
  const rateByKey = ({ key }) => rate(currentId(), Number(key));
  registerShortcut({ keys: ratings, label: "Rate", group, when: hasTake, run: rateByKey });
  registerShortcut({ keys: ["0"], label: "Take the rating away", group, when: hasTake, run: rateByKey });
  registerShortcut({
    keys: ["/"],
    label: "Search",
    run: () => {
      showView("history");
      view.form.focusSearch();
    },
  });
  registerShortcut({
    keys: ["f"],
    label: "Filters",
    run: () => {
      showView("history");
      view.form.show(view.form.panel.hidden);
    },
  });
  registerShortcut({
    keys: ["n"],
    label: "New prompt",
    run: () => {
      showView("compose");
      byId("prompt")?.focus();
    },
  });
  registerShortcut({ keys: ["t"], label: "Dark, light, or as the system", run: nextTheme });
}
