// How many takes there are.

import { call } from "../api.js";

/** The number of all takes, or null if the server doesn't say now. */
export async function loadTotal() {
  try {
    return Number((await call("GetStatistics", { days: 1 })).totalGenerations);
  } catch {
    return null;
  }
}
