// Colours of levels. They grow evenly lighter (on a dark page) or darker (on a light one), so that people with any
// colour vision, and a print in grey, tell the levels apart: Matplotlib's viridis (public domain) between two ends.

const VIRIDIS = [
  [68, 1, 84],
  [71, 44, 122],
  [59, 81, 139],
  [44, 113, 142],
  [33, 144, 141],
  [39, 173, 129],
  [92, 200, 99],
  [170, 220, 50],
  [253, 231, 37],
];
const QUIET_SHARE = 0.22; // Of the scale: fades from the page's own colour.

/** Returns 256 colours as [r, g, b, 255, …] from the quietest to the loudest. `background` is [r, g, b]. */
export function colourTable({ background, isDark }) {
  const ramp = isDark ? VIRIDIS : [...VIRIDIS].reverse();
  const table = new Uint8ClampedArray(256 * 4);
  for (let level = 0; level < 256; level++) {
    const share = level / 255;
    const colour =
      share < QUIET_SHARE
        ? mix(background, ramp[0], share / QUIET_SHARE)
        : onRamp(ramp, (share - QUIET_SHARE) / (1 - QUIET_SHARE));
    table.set([...colour, 255], level * 4);
  }
  return table;
}

function onRamp(ramp, share) {
  const place = share * (ramp.length - 1);
  const below = Math.min(Math.floor(place), ramp.length - 2);
  return mix(ramp[below], ramp[below + 1], place - below);
}

function mix(from, to, share) {
  return from.map((value, index) => value + (to[index] - value) * share);
}
