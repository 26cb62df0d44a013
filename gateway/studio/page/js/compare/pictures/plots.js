// The pictures of the takes on one time axis: spectrograms, short-term loudness and true peak, and the values under the
// pointer or at the playhead.

import { element } from "../../dom.js";
import { colourAt, drawCurves, fitCanvas, isDark, rgbOf, timeMarks, valueAt } from "../../drawing/curves.js";
import { drawSpectrogram } from "../../drawing/spectrogram.js";
import { frequencyOfRow, levelOfByte } from "../../drawing/spectrum_levels.js";
import { formatExactTime, formatValue } from "../take_names.js";
import { TimeAxis } from "./time_axis.js";

const GUTTER = 44; // As wide in compare.css: --compare-gutter.
const DASHES = [[], [7, 3], [2, 2], [9, 3, 2, 3]];
const FREQUENCY_MARKS = [100, 1000, 10000];
const LOUDNESS = { title: "Short-term loudness", unit: "LUFS", range: [-48, 0], marks: [-40, -30, -20, -10], lowest: -70 };
const PEAK = { title: "True peak", unit: "dBTP", range: [-36, 3], marks: [-30, -18, -6, 0], lowest: -120, limit: -1 };

/** `onSeek`, `onLoop` and `onToggle` are those of the time axis. */
export class Plots {
  constructor({ onSeek, onLoop, onToggle }) {
    this.axis = new TimeAxis({ onSeek, onLoop, onToggle, onHover: (seconds, y) => this.#hover(seconds, y) });
    this.pictures = element("div", { class: "compare-pictures" });
    this.times = element("canvas", { class: "compare-times", "aria-hidden": "true" });
    this.frame = element("div", { class: "compare-frame" }, this.pictures, this.times, this.axis.node);
    this.values = element("tbody");
    this.caption = element("caption");
    this.node = element("div", { class: "compare-plots" }, this.frame, this.#table());
    this.spectrograms = [];
    this.seconds = 1;
    this.pointed = null;
    new ResizeObserver(() => this.draw()).observe(this.frame);
  }

  #table() {
    const heads = ["Take", "Short-term LUFS", "Momentary LUFS", "True peak dBTP", "Spectrum"];
    const row = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
    const table = element("table", { class: "compare-values" }, this.caption, element("thead", {}, row), this.values);
    return element("div", { class: "compare-scroll" }, table);
  }

  /** Shows a comparison whose pictures come later: `spectrum[i]` {levels, scale, seconds} and `curves[i]`. */
  show(comparison, seconds) {
    Object.assign(this, { comparison, seconds, spectrum: [], curves: [], position: 0, pointed: null });
    this.axis.hidePointer();
    this.axis.setLength(seconds);
    this.deal();
  }

  /** Shows the takes in the order of their letters. */
  deal() {
    const { comparison } = this;
    this.spectrograms = comparison.shown.map((index, place) => {
      const letter = comparison.letters[index];
      const canvas = element("canvas", { role: "img", "aria-label": `Spectrogram of take ${letter}` });
      const label = element("span", { class: "compare-letter", "aria-hidden": "true" }, letter);
      const figure = element("figure", { class: "compare-spectrogram", dataset: { series: place + 1 } }, canvas, label);
      return { index, canvas, figure };
    });
    this.loudness = element("canvas", { class: "compare-curves" });
    this.peak = element("canvas", { class: "compare-curves" });
    this.pictures.replaceChildren(
      ...this.spectrograms.map(({ figure }) => figure),
      this.#chart(LOUDNESS, this.loudness),
      this.#chart(PEAK, this.peak),
    );
    this.rows = comparison.shown.map((index, place) => this.#row(index, place));
    this.values.replaceChildren(...this.rows.map(({ node }) => node));
    this.draw();
  }

  #chart({ title, unit }, canvas) {
    const letters = this.comparison.shown.map((index) => this.comparison.letters[index]).join(", ");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title} of takes ${letters} over time, in ${unit}`);
    return element("figure", { class: "compare-chart" }, canvas, element("figcaption", {}, `${title}, ${unit}`));
  }

  #row(index, place) {
    const cells = Array.from({ length: 4 }, () => element("td", {}, "–"));
    const line = element("canvas", { class: "compare-dash", "aria-hidden": "true" });
    const letter = element("span", { class: "compare-letter" }, this.comparison.letters[index]);
    const head = element("th", { scope: "row" }, line, letter);
    return { index, place, cells, line, node: element("tr", { dataset: { series: place + 1 } }, head, ...cells) };
  }

  /** Shows the time axis alone, without what tells the takes apart. */
  setBare(isBare) {
    this.node.classList.toggle("bare", isBare);
    this.draw();
  }

  /** Draws all pictures, as after a change of size, theme or what is heard. */
  draw() {
    if (!this.comparison || !this.frame.clientWidth) return;
    const background = rgbOf(colourAt(this.frame, "--surface"));
    const colours = { background, isDark: isDark(background) };
    for (const { index, canvas, figure } of this.spectrograms) {
      figure.classList.toggle("active", index === this.comparison.active);
      this.#drawSpectrogram(canvas, this.spectrum[index], colours);
    }
    this.#drawChart(this.loudness, LOUDNESS, "shortTermLufs");
    this.#drawChart(this.peak, PEAK, "truePeakDbtp");
    this.#drawTimes();
    for (const { place, line } of this.rows) this.#drawDash(line, place);
    this.#fill();
  }

  #drawSpectrogram(canvas, picture, colours) {
    const { context, width, height } = fitCanvas(canvas);
    if (!picture) return;
    const share = Math.min(1, picture.seconds / this.seconds);
    const area = { x: GUTTER, y: 0, width: (width - GUTTER) * share, height };
    drawSpectrogram(context, picture.levels, picture.scale, area, colours);
    const { minHz, maxHz } = picture.scale;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    context.fillStyle = colourAt(canvas, "--muted");
    for (const hertz of FREQUENCY_MARKS) {
      const y = (height * Math.log(maxHz / hertz)) / Math.log(maxHz / minHz);
      if (y > 6 && y < height - 6) context.fillText(hertz < 1000 ? `${hertz}` : `${hertz / 1000}k`, GUTTER - 6, y);
    }
  }

  #drawChart(canvas, { range, marks, lowest, limit = null }, name) {
    const { comparison, curves, seconds } = this;
    const drawn = comparison.shown
      .map((index, place) => {
        const curve = curves[index];
        const colour = colourAt(canvas, `--series-${place + 1}`);
        const isActive = index === comparison.active;
        const values = curve?.[name].map((value) => (value <= lowest ? value : value + comparison.gains[index])) ?? [];
        return { values, secondsPerPoint: curve?.secondsPerPoint, colour, dash: DASHES[place], width: isActive ? 2.4 : 1.3, isActive };
      })
      .sort((a, b) => a.isActive - b.isActive); // What is heard lies on top.
    drawCurves(canvas, drawn, { range, marks, seconds, gutter: GUTTER, limit });
  }

  #drawTimes() {
    const { context, width, height } = fitCanvas(this.times);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.fillStyle = colourAt(this.times, "--muted");
    for (const time of timeMarks(this.seconds, width - GUTTER)) {
      const x = GUTTER + (time / this.seconds) * (width - GUTTER);
      context.textAlign = time === 0 ? "left" : x > width - 20 ? "right" : "center";
      context.fillText(formatExactTime(time).replace(/\.0$/, ""), x, height / 2);
    }
  }

  #drawDash(canvas, place) {
    const { context, width, height } = fitCanvas(canvas);
    context.strokeStyle = colourAt(canvas, `--series-${place + 1}`);
    context.lineWidth = 2;
    context.setLineDash(DASHES[place]);
    context.beginPath();
    context.moveTo(0, height / 2);
    context.lineTo(width, height / 2);
    context.stroke();
  }

  /** Moves the playhead. */
  setPosition(seconds) {
    this.position = seconds;
    this.axis.setPosition(seconds);
    if (this.pointed === null) this.#fill();
  }

  #hover(seconds, y) {
    this.pointed = seconds === null ? null : { seconds, y };
    this.#fill();
  }

  #fill() {
    const seconds = this.pointed?.seconds ?? this.position;
    const place = this.pointed ? "Under the pointer" : "At the playhead";
    const heard = this.comparison.isMatched ? ", as heard" : "";
    this.caption.textContent = `${place}, ${formatExactTime(seconds)}${heard}`;
    for (const { index, cells } of this.rows) {
      const curve = this.curves[index];
      const gain = this.comparison.gains[index];
      const texts = [
        ["shortTermLufs", -70],
        ["momentaryLufs", -70],
        ["truePeakDbtp", -120],
      ].map(([name, lowest]) => {
        const value = curve ? valueAt({ values: curve[name], secondsPerPoint: curve.secondsPerPoint }, seconds) : null;
        return formatValue(value === null || value <= lowest ? value : value + gain, lowest);
      });
      texts.push(this.#spectrumText(index, seconds));
      texts.forEach((text, number) => (cells[number].textContent = text));
    }
  }

  /** The level of a take at the frequency under the pointer, which may be above the spectrogram of another. */
  #spectrumText(index, seconds) {
    const picture = this.spectrum[index];
    if (!this.pointed || !picture) return "–";
    for (const { canvas } of this.spectrograms) {
      const { top, height } = canvas.getBoundingClientRect();
      const row = Math.floor(((this.pointed.y - top) / height) * picture.scale.rows);
      const column = Math.floor((seconds / picture.seconds) * picture.scale.columns);
      if (row < 0 || row >= picture.scale.rows || column >= picture.scale.columns) continue;
      const hertz = frequencyOfRow(row, picture.scale);
      const level = levelOfByte(picture.levels[column * picture.scale.rows + row]) + this.comparison.gains[index];
      const name = hertz < 1000 ? `${Math.round(hertz)} Hz` : `${(hertz / 1000).toFixed(1)} kHz`;
      return `${name}: ${level.toFixed(0).replace("-", "−")} dB`;
    }
    return "–";
  }
}
