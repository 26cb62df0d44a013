// Level matching: the loudness at which takes are heard, and the gains that make it equal.

const MONO_ON_TWO_DB = 10 * Math.log10(2);

/**
 * Returns the integrated loudness in LUFS with which a take is heard in a mix of `mixChannels` channels, or null if it
 * has none: a mono take comes from two loudspeakers then, and ITU-R BS.1770 adds up their power.
 */
export function heardLoudness({ lufs, channels }, mixChannels) {
  if (typeof lufs !== "number" || !Number.isFinite(lufs)) return null;
  return channels === 1 && mixChannels === 2 ? lufs + MONO_ON_TWO_DB : lufs;
}

/**
 * Returns the gains in dB, 0 or less, that bring all takes to the loudness of the quietest, so that none clips. A take
 * without a loudness keeps its level.
 */
export function matchingGains(takes, mixChannels) {
  const heard = takes.map((take) => heardLoudness(take, mixChannels));
  const known = heard.filter((lufs) => lufs !== null);
  const quietest = Math.min(...known);
  return heard.map((lufs) => (lufs === null ? 0 : quietest - lufs));
}
