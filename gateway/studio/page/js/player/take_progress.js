/** Words how far a take is: what is being done, how much of it, and how long it will take. */

const STAGES = {
  GENERATION_STAGE_QUEUED: "Waiting for a place in the batch",
  GENERATION_STAGE_LOADING_MODEL: "Loading the model",
  GENERATION_STAGE_ENCODING_PROMPT: "Reading the prompt",
  GENERATION_STAGE_GENERATING: "Generating",
  GENERATION_STAGE_EXPORTING: "Writing the file",
};
export const STATES = {
  GENERATION_STATE_PENDING: "Queued",
  GENERATION_STATE_PROCESSING: "Generating",
  GENERATION_STATE_COMPLETED: "Finished",
  GENERATION_STATE_FAILED: "Failed",
  GENERATION_STATE_CANCELLED: "Cancelled",
};
/** Progress from which on an estimate is better than none. */
const TELLING_PROGRESS = 0.03;

const starts = new Map();

/**
 * Returns {text, share, secondsToGo} of an unfinished take: `share` is 0 to 1, or null while there is nothing to measure.
 * @param {object} generation
 * @param {{position?: number, waitSeconds?: number}} queue its place in the queue from 1, and the wait, if they are known.
 */
export function describeProgress(generation, queue = {}, now = performance.now()) {
  if (generation.state === "GENERATION_STATE_PENDING") return { text: describeWait(generation, queue), share: null };
  const stage = STAGES[generation.stage] ?? "Starting";
  const progress = generation.progress ?? 0;
  if (generation.stage !== "GENERATION_STAGE_GENERATING") return { text: `${stage} …`, share: progress || null };
  const secondsToGo = estimate(generation, progress, now);
  const time = secondsToGo === null ? "" : `, about ${formatWait(secondsToGo)} to go`;
  return { text: `${stage}: ${Math.floor(100 * progress)} %${time}`, share: progress, secondsToGo };
}

function describeWait({ attempt, notBefore }, { position = 0, waitSeconds = 0 }) {
  const retryAt = notBefore && attempt ? new Date(notBefore) : null;
  if (retryAt && retryAt > new Date()) return `The next attempt begins at ${retryAt.toLocaleTimeString()}`;
  const wait = waitSeconds > 1 ? `, about ${formatWait(waitSeconds)} until it begins` : "";
  if (position === 1) return `Next in the queue${wait}`;
  return position ? `Number ${position} in the queue${wait}` : "Queued";
}

/** Words a time that is a guess: nobody needs its seconds when it is minutes. */
export function formatWait(seconds) {
  if (seconds < 1.5) return "1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Seconds to go at the speed since the first report of this attempt; null while that tells nothing. */
function estimate({ id, attempt }, progress, now) {
  const key = `${id}/${attempt}`;
  if (!starts.has(key)) starts.set(key, { at: now, progress });
  if (starts.size > 200) starts.delete(starts.keys().next().value);
  const { at, progress: first } = starts.get(key);
  const done = progress - first;
  return done < TELLING_PROGRESS ? null : ((now - at) / 1000 / done) * (1 - progress);
}
