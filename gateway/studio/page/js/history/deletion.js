// Deletes takes: asked for once, and for a while it can be undone, because only then the server is told.

import { call } from "../api.js";
import { confirmDialog } from "../dialogs.js";
import { shorten } from "../formats.js";
import { emit, getTake } from "../state.js";
import { toast, toastError } from "../toasts.js";

const UNDO_MS = 8000;
const RUNNING = "GENERATION_STATE_PROCESSING";

const waiting = new Map();

/** Whether a take can be deleted now: the server refuses while it is being generated. */
export function canDelete(generation) {
  return generation.state !== RUNNING;
}

/** Asks, and deletes the takes unless it is undone. `list` is the TakeList that they are in. */
export async function deleteTakes(ids, list) {
  const takes = ids.map(getTake).filter((generation) => generation && canDelete(generation));
  if (!takes.length) {
    if (ids.length) toast("A take that is being generated can't be deleted. Cancel it first.");
    return;
  }
  const [first] = takes;
  const isOne = takes.length === 1;
  const text = isOne
    ? `“${shorten(first.prompt, 160)}” is deleted with its file and everything rendered from it.`
    : `${takes.length} takes are deleted with their files and everything rendered from them.`;
  const title = isOne ? "Delete this take?" : `Delete ${takes.length} takes?`;
  if (!(await confirmDialog({ title, text, action: "Delete", danger: true }))) return;

  for (const { id } of takes) list.hide(id);
  const batch = { takes, list };
  batch.timer = setTimeout(() => carryOut(batch), UNDO_MS);
  waiting.set(batch, batch.timer);
  batch.dismiss = toast(isOne ? "Take deleted." : `${takes.length} takes deleted.`, {
    action: { label: "Undo", run: () => undo(batch) },
    milliseconds: UNDO_MS,
  });
}

function undo(batch) {
  clearTimeout(batch.timer);
  waiting.delete(batch);
  for (const { id } of batch.takes) batch.list.restore(id);
}

async function carryOut(batch) {
  waiting.delete(batch);
  batch.dismiss?.();
  for (const { id } of batch.takes) {
    try {
      await call("DeleteGeneration", { id });
    } catch (error) {
      if (error.code !== "NOT_FOUND") {
        batch.list.restore(id);
        toastError(error, "The take was not deleted");
        continue;
      }
    }
    emit("deleted", { id });
  }
}

/** Whoever leaves the page meant it: what waits for an undo is deleted now. */
function deleteAtOnce() {
  for (const { takes, timer } of waiting.keys()) {
    clearTimeout(timer);
    for (const { id } of takes) {
      const headers = { "content-type": "application/json" };
      fetch("/api/DeleteGeneration", { method: "POST", headers, body: JSON.stringify({ id }), keepalive: true });
    }
  }
  waiting.clear();
}

addEventListener("pagehide", deleteAtOnce);
