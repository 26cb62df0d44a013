// Gets what is drawn of a take.

import { call } from "../../api.js";
import { spectrogramOf } from "../../drawing/spectrogram.js";
import { patiently } from "../patience.js";

const COLUMNS = 1200; // Over the longest take.
const ROWS = 160;
const MIN_HZ = 40;
const MAX_HZ = 20_000;
const POINTS = 1200;

/** Returns the mean of the channels, in new memory. */
export function toMono(channels) {
  const mono = new Float32Array(channels[0]);
  if (channels.length === 1) return mono;
  for (let frame = 0; frame < mono.length; frame++) mono[frame] = (mono[frame] + channels[1][frame]) / 2;
  return mono;
}

/** Returns a take's spectrogram {levels, scale, seconds}, on the scale of a comparison of this length and rate. */
export async function loadSpectrogram(mono, rate, longestSeconds, options) {
  const seconds = mono.length / rate;
  const columns = Math.max(1, Math.round((COLUMNS * seconds) / longestSeconds));
  const scale = { columns, rows: ROWS, minHz: MIN_HZ, maxHz: Math.min(MAX_HZ, rate / 2) };
  return { levels: await spectrogramOf(mono, rate, scale, options), scale, seconds };
}

/** Returns a take's loudness curve. */
export function loadCurve(id, { signal }) {
  return patiently(() => call("GetLoudnessCurve", { generationId: id, points: POINTS }, { signal }), signal);
}
