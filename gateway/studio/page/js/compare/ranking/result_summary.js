// What earlier comparisons say together: how often what was preferred.

/**
 * Returns how takes of each kind fared, best first: [{key, wins, compared, expected, preferred, pairs}]. `keyOf(id)` is
 * the kind of a generation, or null if nothing is known of it. A comparison counts if it has takes of two kinds:
 * `wins` are first places of `compared`, `expected` as many as chance would give, and `preferred` of `pairs` is how
 * often a take was ranked above one of another kind.
 */
export function summarize(comparisons, keyOf) {
  const kinds = new Map();
  for (const { generationIds } of comparisons) {
    const keys = generationIds.map(keyOf);
    if (keys.includes(null) || new Set(keys).size < 2) continue;
    for (const key of new Set(keys)) {
      const kind = kinds.get(key) ?? { key, wins: 0, compared: 0, expected: 0, preferred: 0, pairs: 0 };
      kinds.set(key, kind);
      kind.compared += 1;
      kind.wins += keys[0] === key ? 1 : 0;
      kind.expected += keys.filter((one) => one === key).length / keys.length;
    }
    keys.forEach((key, place) => {
      for (const other of keys.slice(place + 1)) {
        if (other === key) continue;
        kinds.get(key).preferred += 1;
        kinds.get(key).pairs += 1;
        kinds.get(other).pairs += 1;
      }
    });
  }
  return [...kinds.values()].sort((a, b) => b.preferred / b.pairs - a.preferred / a.pairs || b.pairs - a.pairs);
}
