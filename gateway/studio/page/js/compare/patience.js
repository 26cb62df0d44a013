// Repeats what failed for a reason that passes, such as a server that is being restarted.

import { ApiError } from "../api.js";

const MAX_TRIES = 6;
const PAUSE_MS = 400;

/** Returns what `work` resolves to. It is tried again, after pauses that double, while its errors may pass. */
export async function patiently(work, signal) {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (!mayPass(error) || tries >= MAX_TRIES) throw error;
      await pause(PAUSE_MS * 2 ** (tries - 1), signal);
    }
  }
}

function mayPass(error) {
  return error instanceof ApiError ? error.isPassing : !["AbortError", "RangeError"].includes(error.name);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
