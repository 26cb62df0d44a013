/** Cancels takes and tries them again, also while the server is being restarted. */
import { call } from "../api.js";
import { putTake } from "../state.js";
import { toastError } from "../toasts.js";

const TRIES = 5;
const PAUSE_MS = 1000;

/** Cancels a take that is queued or being generated. Tells the user if that fails. */
export function cancelTake(id) {
  return change("CancelGeneration", id, "The take was not cancelled");
}

/** Puts a failed take into the queue again. Tells the user if that fails. */
export function retryTake(id) {
  return change("RetryGeneration", id, "The take was not retried");
}

async function change(method, id, failure) {
  for (let tried = 1; ; tried += 1) {
    try {
      putTake((await call(method, { id })).generation);
      return;
    } catch (error) {
      if (tried > 1 && error.code === "FAILED_PRECONDITION") {
        await refresh(id); // The call before has done it, and only its answer was lost.
        return;
      }
      if (!error.isPassing || tried === TRIES) {
        toastError(error, failure);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, error.retryAfterSeconds ? 1000 * error.retryAfterSeconds : PAUSE_MS));
    }
  }
}

async function refresh(id) {
  try {
    putTake((await call("GetGeneration", { id })).generation);
  } catch (error) {
    toastError(error, "The take could not be read");
  }
}
