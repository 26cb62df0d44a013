/** Where the bars of a take begin, so that a selection can begin and end with them. */
import { call } from "../api.js";

/** Returns the range, in seconds, moved to the nearest bars, at least one bar long. Throws Error if there are none. */
export async function snapToBars(id, [from, to], seconds) {
  const grid = await call("GetBeatGrid", { generationId: id });
  const lines = barLines(grid, seconds);
  if (lines.length < 2) throw new Error("No bars were found in this take.");
  const first = nearest(lines, from);
  const last = nearest(lines, to);
  if (first !== last) return [lines[first], lines[last]];
  return first + 1 < lines.length ? [lines[first], lines[first + 1]] : [lines[first - 1], lines[first]];
}

/** The beginnings of the bars in seconds; the end of the take is one, too, if a bar may end there. */
function barLines({ beatSeconds = [], firstDownbeat = 0, beatsPerBar = 0 }, seconds) {
  if (!beatsPerBar) return [];
  const lines = beatSeconds.filter((_, index) => index >= firstDownbeat && (index - firstDownbeat) % beatsPerBar === 0);
  const bar = lines.length > 1 ? lines.at(-1) - lines.at(-2) : Infinity;
  if (lines.length && Math.abs(lines.at(-1) + bar - seconds) < bar / 2) lines.push(Math.min(lines.at(-1) + bar, seconds));
  return lines;
}

function nearest(lines, time) {
  return lines.reduce((best, line, index) => (Math.abs(line - time) < Math.abs(lines[best] - time) ? index : best), 0);
}
