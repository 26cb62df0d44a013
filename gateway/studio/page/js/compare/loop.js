// What a comparison repeats.

const LEAST_SECONDS = 0.1;

/** A region of all takes, and whether it is repeated. It is shown by the time axis and the transport. */
export class Loop {
  #range = null;
  #isOn = false;
  #playback = null;

  constructor({ axis, transport }) {
    Object.assign(this, { axis, transport });
  }

  /** Begins without a loop, for another playback or none. */
  reset(playback) {
    this.#playback = playback;
    this.#show(null, false);
  }

  /** Repeats [start, end], in seconds, or nothing. From elsewhere, the playhead goes to its start. */
  set(range, isOn) {
    if (!this.#playback) return;
    this.#show(range, isOn);
    const { position } = this.#playback;
    if (isOn && range && (position < range[0] || position >= range[1])) this.#playback.seek(range[0]);
  }

  #show(range, isOn) {
    [this.#range, this.#isOn] = [range, isOn];
    this.#playback?.setLoop(isOn ? range : null);
    this.axis.setLoop(range, isOn);
    this.transport.setLoop(isOn);
  }

  /** Begins or ends to repeat what is selected, or else everything. */
  toggle() {
    if (this.#playback) this.set(this.#range ?? [0, this.#playback.seconds], !this.#isOn);
  }

  /** Moves the beginning (0) or the end (1) to the playhead. */
  setEnd(end) {
    if (!this.#playback) return;
    const { position, seconds } = this.#playback;
    const range = [...(this.#range ?? [0, seconds])];
    range[end] = position;
    if (range[1] - range[0] < LEAST_SECONDS) range[1 - end] = end ? 0 : seconds;
    if (range[1] - range[0] >= LEAST_SECONDS) this.set(range, true);
  }
}
