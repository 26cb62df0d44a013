// What can be done with a take: the items of its menu, which the details offer too.

import { icon } from "../icons.js";
import { openMenu } from "../menus.js";
import { cancelTake, retryTake } from "../player/take_changes.js";
import { emit, isFinished } from "../state.js";
import { canDelete } from "./deletion.js";
import { downloadItems } from "../details/downloads.js";

/** The items of a take's menu. `view` is the HistoryView. */
export function takeItems(generation, view) {
  const { id, state } = generation;
  const isCompleted = state === "GENERATION_STATE_COMPLETED";
  const edit = (kind) => () => emit("edit", { id, kind });
  const items = [];
  if (isCompleted) {
    items.push(
      { label: "Add to the comparison", icon: icon("compare"), kbd: "c", run: () => emit("compare-add", { id }) },
      {
        label: "Save as…",
        icon: icon("download"),
        kbd: "d",
        run: () => openMenu(view.menuPlace(id), downloadItems(generation), { label: "Save as" }),
      },
      "-",
      { label: "More like this", icon: icon("branch"), run: edit("variation") },
      { label: "Make it longer", icon: icon("plus"), run: edit("extend-right") },
      { label: "Continue it as a new take", icon: icon("play"), run: edit("continue") },
      { label: "Use as a melody", icon: icon("wave"), run: edit("melody") },
    );
  }
  items.push({ label: "Use its settings again", icon: icon("undo"), run: () => emit("reuse", { generation }) });
  items.push({ label: "Copy a link to it", icon: icon("link"), run: () => view.copyAddress(id) });
  items.push("-");
  if (!isFinished(generation)) items.push({ label: "Cancel it", icon: icon("stop"), run: () => cancelTake(id) });
  if (state === "GENERATION_STATE_FAILED")
    items.push({ label: "Try again", icon: icon("loop"), run: () => retryTake(id) });
  if (canDelete(generation))
    items.push({ label: "Delete…", icon: icon("trash"), danger: true, kbd: "Del", run: () => view.delete(id) });
  return items;
}
