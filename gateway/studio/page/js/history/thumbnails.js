// Small waveforms: fetched when they come into sight, a few at a time, and kept.

import { call } from "../api.js";
import { drawWaveform } from "../drawing/waveform.js";

const POINTS = 66;
const AT_ONCE = 2;
const KEPT = 2000;
const SETTLE_MS = 120;

const cache = new Map();
const wanted = new Map();
let running = 0;
let timer = 0;

function remember(id, data) {
  cache.set(id, data);
  if (cache.size > KEPT) cache.delete(cache.keys().next().value);
}

function draw(canvas, data) {
  canvas.hidden = !data.length;
  if (data.length) drawWaveform(canvas, { peaks: data, scale: 128 });
}

/** Draws the waveform of a finished take as soon as it is there. Call `forget` when the canvas goes out of sight. */
export function showThumbnail(canvas, id) {
  const data = cache.get(id);
  if (data) return draw(canvas, data);
  canvas.hidden = true;
  wanted.set(canvas, id);
  timer ||= setTimeout(settle, SETTLE_MS);
}

/** Does not fetch for this canvas any more. */
export function forgetThumbnail(canvas) {
  wanted.delete(canvas);
}

/** Fetches what is still in sight: while the list is scrolled fast, most rows are gone by then. */
function settle() {
  timer = 0;
  pump();
}

function pump() {
  // The latest come first.
  while (running < AT_ONCE && wanted.size) {
    const [canvas, id] = [...wanted].at(-1);
    wanted.delete(canvas);
    running += 1;
    fetchPoints(id)
      .then((data) => canvas.isConnected && canvas.dataset.take === id && draw(canvas, data))
      .finally(() => {
        running -= 1;
        pump();
      });
  }
}

async function fetchPoints(id) {
  try {
    const { data = [] } = await call("GetWaveform", { generationId: id, points: POINTS });
    remember(id, data);
    return data;
  } catch (error) {
    if (!error.isPassing) remember(id, []); // Its file is gone, which the player says of a take that is selected.
    return [];
  }
}
