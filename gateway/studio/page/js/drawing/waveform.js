/**
 * Draws waveforms. `drawWaveform` is for thumbnails; `WaveformView` of waveform_view.js is the big one.
 *
 * Peaks are pairs of minimum and maximum: those of GetWaveform (8 bits, scale 128) or floats (scale 1).
 */

const FALLBACKS = {
  wave: "#7c8aa0",
  "wave-played": "#3d7eff",
  "wave-pending": "#c3cad6",
  "wave-ruler": "#8a94a6",
};

/** The colour of a CSS variable such as "wave", as this element has it. */
export function colourOf(element, name) {
  return getComputedStyle(element).getPropertyValue(`--${name}`).trim() || FALLBACKS[name] || "currentColor";
}

/** Makes the canvas as fine as the display, and returns its context and its size in CSS pixels. */
export function prepareCanvas(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  const [columns, rows] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== columns) canvas.width = columns;
  if (canvas.height !== rows) canvas.height = rows;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/**
 * Draws a waveform over the whole canvas.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {{peaks: ArrayLike<number>, scale?: number, played?: number, covered?: number, colour?: string, bottom?: number}}
 *   options `played` is the part that is drawn in the colour of what was played, `covered` the part of the width that the
 *   peaks cover, both 0 to 1; `bottom` is left free, in pixels.
 */
export function drawWaveform(canvas, { peaks, scale = 128, played = 0, covered = 1, colour, bottom = 0 }) {
  const { context, width, height } = prepareCanvas(canvas);
  const middle = (height - bottom) / 2;
  const columns = foldPeaks(peaks, Math.max(1, Math.floor((width * covered) / COLUMN_PIXELS)));
  const drawn = columns.length / 2;
  const playedColumns = Math.round((played * width) / COLUMN_PIXELS);
  const base = colour ?? colourOf(canvas, "wave");
  const playedColour = played ? colourOf(canvas, "wave-played") : base;
  for (const [from, to, fill] of [[0, Math.min(playedColumns, drawn), playedColour], [playedColumns, drawn, base]]) {
    context.fillStyle = fill;
    for (let column = from; column < to; column += 1) {
      const low = (columns[2 * column] / scale) * middle;
      const high = (columns[2 * column + 1] / scale) * middle;
      context.fillRect(column * COLUMN_PIXELS, middle - high, BAR_PIXELS, Math.max(high - low, 1));
    }
  }
  if (covered < 1) {
    context.fillStyle = colourOf(canvas, "wave-pending");
    context.fillRect(width * covered, middle - 0.5, width * (1 - covered), 1);
  }
}

const COLUMN_PIXELS = 3;
const BAR_PIXELS = 2;

/** Returns the peaks with this number of pairs: what falls into one column is joined, and nothing is lost. */
export function foldPeaks(peaks, columns) {
  const points = peaks.length / 2;
  const folded = new Float32Array(2 * (points ? columns : 0));
  for (let column = 0; column < folded.length / 2; column += 1) {
    const from = Math.floor((column * points) / columns);
    const to = Math.max(from + 1, Math.floor(((column + 1) * points) / columns));
    let [low, high] = [Infinity, -Infinity];
    for (let point = from; point < to; point += 1) {
      low = Math.min(low, peaks[2 * point]);
      high = Math.max(high, peaks[2 * point + 1]);
    }
    folded[2 * column] = low;
    folded[2 * column + 1] = high;
  }
  return folded;
}

/** Draws the times below a waveform, as many as fit. */
export function drawRuler(canvas, seconds, bottom) {
  const context = canvas.getContext("2d");
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!seconds || !width) return;
  const step = STEPS.find((each) => (each / seconds) * width >= LABEL_PIXELS) ?? 600;
  context.fillStyle = colourOf(canvas, "wave-ruler");
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "bottom";
  for (let index = 0; index * step < seconds; index += 1) {
    const x = ((index * step) / seconds) * width;
    context.fillRect(Math.round(x), height - bottom, 1, 4);
    const text = labelOf(index * step, step);
    if (x + context.measureText(text).width + 4 < width) context.fillText(text, x + 3, height);
  }
}

const LABEL_PIXELS = 64;
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300];

function labelOf(seconds, step) {
  if (seconds >= 60 || step >= 60) {
    return `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}`;
  }
  return step < 1 ? seconds.toFixed(1) : `${Math.round(seconds)} s`;
}

/** The waveform of samples that arrive one after another, in points of some frames each. */
export class LivePeaks {
  #peaks = new Float32Array(1024);
  #points = 0;

  /** @param {number} framesPerPoint */
  constructor(framesPerPoint, channels) {
    this.framesPerPoint = framesPerPoint;
    this.channels = channels;
  }

  /** Minimum and maximum of each point in turn, over all channels. */
  get peaks() {
    return this.#peaks.subarray(0, 2 * this.#points);
  }

  /** Adds interleaved samples from a frame on. */
  add(startFrame, samples) {
    const { channels, framesPerPoint } = this;
    const lastPoint = Math.floor((startFrame + samples.length / channels - 1) / framesPerPoint);
    while (2 * (lastPoint + 1) > this.#peaks.length) {
      const larger = new Float32Array(2 * this.#peaks.length);
      larger.set(this.#peaks);
      this.#peaks = larger;
    }
    this.#points = Math.max(this.#points, lastPoint + 1);
    for (let index = 0; index < samples.length; index += 1) {
      const point = 2 * Math.floor((startFrame + Math.floor(index / channels)) / framesPerPoint);
      const sample = samples[index];
      if (sample < this.#peaks[point]) this.#peaks[point] = sample;
      if (sample > this.#peaks[point + 1]) this.#peaks[point + 1] = sample;
    }
  }
}
