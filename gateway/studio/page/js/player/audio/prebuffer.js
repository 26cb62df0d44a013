/** How much music has to be there before it starts to play, so that it does not have to stop. */

const LEAST_SECONDS = 0.3;
const MOST_PATIENCE_SECONDS = 5;
const MOST_SECONDS = 20;

/**
 * Returns the seconds to have before playback starts or goes on.
 *
 * @param {{leftSeconds: number, speed: number, underruns: number}} about
 *   `leftSeconds` is what is still to be played; `speed` how many seconds of music arrive in a second, Infinity if that is
 *   not known to be slow; `underruns` how often playback had to stop already.
 */
export function bufferSeconds({ leftSeconds, speed, underruns }) {
  const patience = Math.min(LEAST_SECONDS * 2 ** underruns, MOST_PATIENCE_SECONDS);
  // While x seconds play, speed * x arrive: what is missing for the rest has to be there at its start.
  const missing = speed < 1 ? (1 - speed) * leftSeconds : 0;
  return Math.min(Math.max(patience, missing), MOST_SECONDS, Math.max(leftSeconds, LEAST_SECONDS));
}

/** How fast music arrives. */
export class ArrivalSpeed {
  #seconds = 0;
  #since = 0;

  add(seconds) {
    // The first chunk brings all that was generated before, which says nothing about the speed.
    if (this.#since) this.#seconds += seconds;
    else this.#since = performance.now();
  }

  /** Seconds of music in a second; Infinity as long as there is too little to tell. */
  get value() {
    const elapsed = this.#since ? (performance.now() - this.#since) / 1000 : 0;
    return elapsed > 1 ? this.#seconds / elapsed : Infinity;
  }
}
