// Keeps the takes that are not finished up to date, over one connection for all of them.

import { Watcher, call } from "./api.js";
import { allTakes, emit, getTake, isFinished, on, putTake } from "./state.js";
import { timeKey } from "./formats.js";

const MOST = 64;
const REGROUP_MS = 150;

let timer = 0;
let watcher;

function newestUnfinished() {
  const running = allTakes().filter((generation) => !isFinished(generation));
  // What is being made changes more often than what waits.
  const order = ({ state, createdAt }) => `${state === "GENERATION_STATE_PROCESSING" ? 1 : 0} ${timeKey(createdAt)}`;
  running.sort((a, b) => (order(a) < order(b) ? 1 : -1));
  return running.slice(0, MOST).map(({ id }) => id);
}

function regroup() {
  timer = 0;
  // In the order of their ids: the same takes need no new connection.
  watcher.set(newestUnfinished().sort());
}

/** Looks again at a take of which the connection told no more, since it may have been deleted. */
async function lookAgain(id) {
  if (!getTake(id) || isFinished(getTake(id))) return;
  try {
    putTake((await call("GetGeneration", { id })).generation);
  } catch (error) {
    if (error.code === "NOT_FOUND") emit("deleted", { id });
  }
}

/** Begins to watch. */
export function startLiveUpdates() {
  watcher = new Watcher({
    onChange: putTake,
    onEnd: lookAgain,
    onProblem: (id, error) => error.code === "NOT_FOUND" && emit("deleted", { id }),
  });
  const schedule = () => {
    timer ||= setTimeout(regroup, REGROUP_MS);
  };
  on("changed", schedule);
  on("deleted", schedule);
  schedule();
}
