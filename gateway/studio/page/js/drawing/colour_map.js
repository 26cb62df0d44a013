// Colours of levels. They grow evenly lighter (on a dark page) or darker (on a light one), so that people with any
// colour vision, and a print in grey, tell the levels apart: Matplotlib's magma (CC0), faded into the page's colour.

const MAGMA = [
  [0, 0, 4],
  [28, 16, 68],
  [79, 18, 123],
  [129, 37, 129],
  [181, 54, 122],
  [229, 80, 100],
  [251, 135, 97],
  [254, 194, 135],
  [252, 253, 191],
];
const QUIET_SHARE = { dark: 0.15, light: 0.3 }; // Of the scale: it begins with the page's own colour.

/** Returns 256 colours as [r, g, b, 255, …] from the quietest to the loudest. `background` is [r, g, b]. */
export function colourTable({ background, isDark }) {
  const ramp = isDark ? MAGMA.slice(1) : [...MAGMA].reverse();
  const quiet = isDark ? QUIET_SHARE.dark : QUIET_SHARE.light;
  const table = new Uint8ClampedArray(256 * 4);
  for (let level = 0; level < 256; level++) {
    const share = level / 255;
    const colour =
      share < quiet
        ? mix(background, ramp[0], share / quiet)
        : onRamp(ramp, (share - quiet) / (1 - quiet));
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
