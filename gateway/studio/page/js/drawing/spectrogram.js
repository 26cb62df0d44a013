// Spectrograms: computed by a Web Worker of this module's, drawn on canvases.

import { scriptUrl } from "../dom.js";
import { colourTable } from "./colour_map.js";

let worker = null;
let last = 0;
const waiting = new Map();

/**
 * Returns the levels of samples (see `computeLevels`), which are given away. `scale` is {columns, rows, minHz, maxHz}.
 * Rejects if the signal aborts, or if the worker fails.
 */
export function spectrogramOf(samples, rate, scale, { signal } = {}) {
  worker ??= startWorker();
  const number = ++last;
  return new Promise((resolve, reject) => {
    waiting.set(number, { resolve, reject });
    signal?.addEventListener("abort", () => settle(number, ({ reject: stop }) => stop(signal.reason)), { once: true });
    worker.postMessage({ number, samples, rate, scale }, [samples.buffer]);
  });
}

function startWorker() {
  const started = new Worker(scriptUrl("/static/js/drawing/spectrogram_worker.js"), { type: "module" });
  started.addEventListener("message", ({ data }) => settle(data.number, ({ resolve }) => resolve(data.levels)));
  started.addEventListener("error", (event) => {
    worker = null;
    const error = new Error(`the spectrogram can't be computed: ${event.message ?? "the worker has failed"}`);
    for (const number of [...waiting.keys()]) settle(number, ({ reject }) => reject(error));
  });
  return started;
}

function settle(number, how) {
  const caller = waiting.get(number);
  if (!caller) return;
  waiting.delete(number);
  how(caller);
}

/**
 * Draws levels into the rectangle {x, y, width, height} of a canvas's context, in CSS pixels. `colours` are the page's
 * [r, g, b] background and whether it is dark.
 */
export function drawSpectrogram(context, levels, { columns, rows }, { x, y, width, height }, colours) {
  const table = new Uint32Array(colourTable(colours).buffer);
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let column = 0; column < columns; column++) {
    for (let row = 0; row < rows; row++) pixels[row * columns + column] = table[levels[column * rows + row]];
  }
  const plain = new OffscreenCanvas(columns, rows);
  plain.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(plain, x, y, width, height);
}
