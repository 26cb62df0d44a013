// What is compared: the takes, their letters, which one is heard, and how they are ranked.

import { matchingGains } from "./sound/levels.js";

export const LETTERS = ["A", "B", "C", "D"];
export const MIN_TAKES = 2;
export const MAX_TAKES = 4;

/** The facts about a finished generation that a comparison needs. */
export function takeOf(generation) {
  const metadata = generation.metadata ?? {};
  return {
    id: generation.id,
    generation,
    lufs: typeof metadata.integrated_lufs === "number" ? metadata.integrated_lufs : null,
    channels: metadata.file_channels || generation.output?.channels || generation.channels,
    rate: metadata.file_sample_rate_hz || generation.output?.sampleRateHz || generation.sampleRateHz,
    seconds: generation.durationSeconds,
  };
}

/** Returns the items in a random order, each as likely. */
export function shuffled(items, random = randomBelow) {
  const order = [...items];
  for (let last = order.length - 1; last > 0; last--) {
    const other = random(last + 1);
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

function randomBelow(limit) {
  return crypto.getRandomValues(new Uint32Array(1))[0] % limit; // The limit is at most 4: no bias that counts.
}

/** Returns a random UUID, also where `crypto.randomUUID` is missing: on http. */
export function newUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [8, 12, 16, 20].map((end, index) => hex.slice(index ? [8, 12, 16][index - 1] : 0, end)).concat(hex.slice(20)).join("-");
}

/**
 * One comparison of 2 to 4 takes. `takes` stay in one order, in which the mixer has them; `letters[i]` is the letter of
 * `takes[i]`. `shown` are the indices in the order of the letters.
 */
export class Comparison {
  constructor(takes) {
    this.takes = takes;
    this.isBlind = false;
    this.isMatched = true;
    this.isSaved = false;
    this.wasRevealed = false;
    this.requestId = newUuid();
    this.#deal(takes.map((_, index) => index));
  }

  #deal(order) {
    this.shown = order;
    this.letters = this.takes.map((_, index) => LETTERS[order.indexOf(index)]);
    this.active = order[0];
    this.ranking = [...order];
  }

  /** Whether it may be seen which take is which. */
  get isRevealed() {
    return !this.isBlind || this.wasRevealed;
  }

  /** Begins anew: with shuffled letters if it is to be blind, else in the order in which the takes were added. */
  restart(isBlind) {
    this.isBlind = isBlind;
    this.isSaved = false;
    this.wasRevealed = false;
    this.requestId = newUuid();
    const order = this.takes.map((_, index) => index);
    this.#deal(isBlind ? shuffled(order) : order);
  }

  /** The number of output channels: two if any take has two. */
  get mixChannels() {
    return Math.max(...this.takes.map(({ channels }) => channels));
  }

  /** The sample rate in which the takes play in step: the highest of theirs. */
  get rate() {
    return Math.max(...this.takes.map(({ rate }) => rate));
  }

  /** The gain of each take in dB. */
  get gains() {
    return this.isMatched ? matchingGains(this.takes, this.mixChannels) : this.takes.map(() => 0);
  }

  /** Moves the take with this index to a place of the ranking, 0 for the best. */
  rank(index, place) {
    const rest = this.ranking.filter((one) => one !== index);
    const target = Math.max(0, Math.min(place, rest.length));
    this.ranking = [...rest.slice(0, target), index, ...rest.slice(target)];
    this.isSaved = false;
    this.requestId = newUuid(); // Another ranking is another request.
  }

  /** The request of CreateComparison. A ranking that was revealed before it was changed is not blind any more. */
  get request() {
    const generationIds = this.ranking.map((index) => this.takes[index].id);
    return { requestId: this.requestId, generationIds, blind: this.isBlind && !this.wasRevealed };
  }

  /** Notes that the ranking is saved, and that from now on it is seen which take is which. */
  markSaved() {
    this.isSaved = true;
    this.wasRevealed = true;
  }
}
