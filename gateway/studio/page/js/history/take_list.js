// The takes that match the filters, newest first, loaded page by page as they are needed.

import { call } from "../api.js";
import { keyOf, soundOfKey, tempoOf, timeKey } from "../formats.js";
import { emit, getTake, putTake } from "../state.js";

const PAGE_SIZE = 100;

/** The filters of a list without any; the names are those of ListGenerationsRequest. */
export const NO_FILTERS = Object.freeze({
  promptContains: "",
  modelName: "",
  states: [],
  minRating: 0,
  minBpm: 0,
  maxBpm: 0,
  key: "",
  createdAfter: "",
  createdBefore: "",
});

/** The part of a request that a filter is: protobuf's JSON leaves out what is empty. */
export function requestOf(filters) {
  const isSet = ([, value]) => (Array.isArray(value) ? value.length > 0 : Boolean(value));
  return Object.fromEntries(Object.entries(filters).filter(isSet));
}

/** Whether the server would list this generation with these filters: it is asked for none that the page can judge. */
export function matches(generation, filters) {
  const { promptContains, modelName, states, minRating, minBpm, maxBpm, key, createdAfter, createdBefore } = filters;
  const created = timeKey(generation.createdAt);
  const bpm = tempoOf(generation);
  return (
    generation.prompt.toLowerCase().includes(promptContains.toLowerCase()) &&
    (!modelName || generation.modelName === modelName) &&
    (!states.length || states.includes(generation.state)) &&
    (generation.rating ?? 0) >= minRating &&
    (!minBpm || bpm >= minBpm) &&
    (!maxBpm || (bpm > 0 && bpm <= maxBpm)) &&
    (!key || soundOfKey(keyOf(generation)) === soundOfKey(key)) &&
    (!createdAfter || created >= timeKey(createdAfter)) &&
    (!createdBefore || created < timeKey(createdBefore))
  );
}

function orderOf(generation) {
  return `${timeKey(generation.createdAt)} ${generation.id}`;
}

/**
 * Loads and holds the ids. Sends "change" when they, or what is known of the loading, have changed.
 *
 * Takes that come or change meanwhile are put where they belong, so that a list that is open for days stays right.
 * A take that stops matching stays until the filters are set again: it would vanish under the listener's hands.
 */
export class TakeList extends EventTarget {
  ids = [];
  isComplete = false;
  isLoading = false;
  error = null;
  #filters = { ...NO_FILTERS };
  #token = "";
  #abort = null;
  #hidden = new Set();
  #known = new Set();

  /** The filters in force. */
  get filters() {
    return this.#filters;
  }

  /** Starts over with other filters, or with the same. */
  setFilters(filters) {
    this.#abort?.abort();
    this.#filters = { ...NO_FILTERS, ...filters };
    this.ids = [];
    this.#known.clear();
    this.#token = "";
    this.isComplete = this.isLoading = false;
    return this.loadMore();
  }

  /** Loads the next page, unless one is being loaded or there is none. */
  async loadMore() {
    if (this.isLoading || this.isComplete) return;
    const abort = (this.#abort = new AbortController());
    this.isLoading = true;
    this.error = null;
    this.#changed();
    try {
      const request = { ...requestOf(this.#filters), pageSize: PAGE_SIZE, pageToken: this.#token };
      const answer = await call("ListGenerations", request, { signal: abort.signal });
      if (abort.signal.aborted) return;
      this.#token = answer.nextPageToken ?? "";
      this.isComplete = !this.#token;
      this.#append(answer.generations ?? []);
    } catch (error) {
      if (abort.signal.aborted) return;
      this.error = error;
    }
    this.isLoading = false;
    this.#changed();
  }

  /** Looks for what others have made and deleted since, among the newest. Starts over if that is more than a page. */
  async refresh() {
    if (this.isLoading) return;
    if (this.error) {
      await this.loadMore();
      return;
    }
    const [filters, before] = [this.#filters, this.ids.slice(0, PAGE_SIZE)];
    const { generations = [], nextPageToken } = await call("ListGenerations", {
      ...requestOf(filters),
      pageSize: PAGE_SIZE,
    });
    if (filters !== this.#filters || this.isLoading) return;
    if (nextPageToken && !generations.some(({ id }) => this.#known.has(id))) {
      await this.setFilters(filters);
      return;
    }
    for (const generation of generations) putTake(generation);
    if (Object.keys(requestOf(filters)).length) return; // Or else what has stopped matching would seem to be deleted.
    const there = new Set(generations.map(({ id }) => id));
    const oldest = generations.length && nextPageToken ? orderOf(generations.at(-1)) : "";
    for (const id of before) if (!there.has(id) && orderOf(getTake(id)) >= oldest) emit("deleted", { id });
  }

  /** Takes in what has become of a generation. */
  take(generation) {
    const { id } = generation;
    if (this.#known.has(id) || this.#hidden.has(id) || !matches(generation, this.#filters)) return;
    const index = this.#place(orderOf(generation));
    if (index === this.ids.length && !this.isComplete) return; // It comes with its page.
    this.ids.splice(index, 0, id);
    this.#known.add(id);
    this.#changed();
  }

  /** Takes a generation out. While it is hidden, it does not come back by itself. */
  hide(id) {
    this.#hidden.add(id);
    if (!this.#known.delete(id)) return;
    this.ids = this.ids.filter((one) => one !== id);
    this.#changed();
  }

  /** Puts a hidden generation back in its place. */
  restore(id) {
    this.#hidden.delete(id);
    const generation = getTake(id);
    if (generation) this.take(generation);
  }

  #append(generations) {
    for (const { id } of generations) {
      if (this.#known.has(id) || this.#hidden.has(id)) continue;
      this.ids.push(id);
      this.#known.add(id);
    }
    for (const generation of generations) putTake(generation);
  }

  /** The index of the first take that is older than this order. */
  #place(order) {
    let [low, high] = [0, this.ids.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (orderOf(getTake(this.ids[middle])) < order) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
