/** The samples of the takes heard live last, as they arrived. */

const TAKES = 2;

export class Captures {
  #stores = new Map();

  /** Keeps the samples of this take, and forgets those of the take that was added first if there are too many. */
  keep(id, store) {
    this.#stores.delete(id);
    this.#stores.set(id, store);
    if (this.#stores.size > TAKES) this.#stores.delete(this.#stores.keys().next().value);
  }

  /** A copy of the samples, with their format; null if there are none of this take. */
  read(id) {
    const store = this.#stores.get(id);
    return store ? { ...store.format, samples: store.read(0, store.endFrame) } : null;
  }
}
