// Finds the generations that are to be compared.

import { call } from "../api.js";
import { emit, getTake } from "../state.js";
import { takeOf } from "./comparison.js";

const COMPLETED = "GENERATION_STATE_COMPLETED";

/** Returns the takes with these ids that are finished. The user is told of the others. */
export async function loadTakes(ids, signal) {
  const takes = [];
  for (const id of ids) {
    try {
      const known = getTake(id);
      const isCurrent = known?.state === COMPLETED;
      const generation = isCurrent ? known : (await call("GetGeneration", { id }, { signal })).generation;
      if (generation.state === COMPLETED) takes.push(takeOf(generation));
      else emit("toast", { text: "A take that is not finished was left out of the comparison." });
    } catch (error) {
      if (error.code !== "NOT_FOUND") throw error;
      emit("compare-remove", { id });
    }
  }
  return takes;
}
