// Curves over time with their axes, on a canvas.

/** Fits a canvas to its element on this display. Returns its context, which draws in CSS pixels, and its size. */
export function fitCanvas(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = globalThis.devicePixelRatio || 1;
  const [wide, high] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Returns the colour of a CSS variable as it is at the element. */
export function colourAt(node, name) {
  return getComputedStyle(node).getPropertyValue(name).trim();
}

/** Returns [r, g, b] of a colour as browsers write computed ones. */
export function rgbOf(colour) {
  const numbers = colour.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0];
  if (!colour.startsWith("#")) return numbers.slice(0, 3);
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
}

/** Whether a colour is dark, so that what is drawn on it has to be light. */
export function isDark([red, green, blue]) {
  return red * 0.299 + green * 0.587 + blue * 0.114 < 128;
}

/** Returns round numbers of seconds from 0 on for the marks of a time axis, at least `gap` pixels apart. */
export function timeMarks(seconds, width, gap = 70) {
  const least = (seconds * gap) / Math.max(width, 1);
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((one) => one >= least) ?? 7200;
  return Array.from({ length: Math.floor(seconds / step + 1e-9) + 1 }, (_, index) => index * step);
}

/** Returns the value of a curve at a time, or null where it has none. */
export function valueAt({ values, secondsPerPoint }, seconds) {
  const index = Math.floor(seconds / secondsPerPoint + 1e-9);
  return index >= 0 && index < values.length ? values[index] : null;
}

/**
 * Draws curves on a canvas: `curves` are [{values, secondsPerPoint, colour, dash, width}], `range` is [min, max], and
 * `marks` are the values with a line and a number. `gutter` is the width of the numbers in CSS pixels, left of the
 * curves; `seconds` is the length of the time axis. Values outside of the range are drawn at its ends.
 */
export function drawCurves(canvas, curves, { range: [min, max], marks, seconds, gutter, limit = null }) {
  const { context, width, height } = fitCanvas(canvas);
  const [grid, text] = [colourAt(canvas, "--grid-line"), colourAt(canvas, "--muted")];
  const inset = 6;
  const yOf = (value) => inset + ((max - Math.max(min, Math.min(max, value))) / (max - min)) * (height - 2 * inset);
  const xOf = (time) => gutter + (time / seconds) * (width - gutter);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.lineWidth = 1;
  for (const mark of marks) {
    line(context, grid, [[gutter, yOf(mark)], [width, yOf(mark)]]);
    context.fillStyle = text;
    context.fillText(String(mark).replace("-", "−"), gutter - 6, yOf(mark));
  }
  for (const time of timeMarks(seconds, width - gutter)) line(context, grid, [[xOf(time), 0], [xOf(time), height]]);
  if (limit !== null) line(context, colourAt(canvas, "--warning"), [[gutter, yOf(limit)], [width, yOf(limit)]], [2, 3]);
  for (const curve of curves) {
    const points = [];
    for (let index = 0; index < curve.values.length; index++) {
      const time = Math.min(index * curve.secondsPerPoint, seconds);
      if (curve.isStepped && index) points.push([xOf(time), yOf(curve.values[index - 1])]);
      points.push([xOf(time), yOf(curve.values[index])]);
    }
    context.lineWidth = curve.width ?? 1.5;
    context.lineJoin = "round";
    line(context, curve.colour, points, curve.dash);
  }
}

function line(context, colour, points, dash = []) {
  context.strokeStyle = colour;
  context.setLineDash(dash);
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
  context.setLineDash([]);
}
