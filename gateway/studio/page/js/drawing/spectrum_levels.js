// The levels of a spectrogram: columns over time, rows over the logarithm of the frequency.

import { PowerSpectrum } from "./fft.js";

export const MIN_DB = -90;
export const MAX_DB = 0;
const WINDOW_SECONDS = 0.09; // Resolves semitones from about 200 Hz on.
const MAX_FRAMES_PER_COLUMN = 6;

/** Returns the frequency in Hz at the middle of a row; row 0 is the highest. */
export function frequencyOfRow(row, { rows, minHz, maxHz }) {
  return maxHz * (minHz / maxHz) ** ((row + 0.5) / rows);
}

/** Returns the level in dB, relative to a full-scale sine, that a byte of the levels stands for. */
export function levelOfByte(byte) {
  return MIN_DB + (byte / 255) * (MAX_DB - MIN_DB);
}

/**
 * Returns the levels of samples as bytes, column by column from the highest row down: [columns * rows], where 0 stands
 * for MIN_DB and less, and 255 for MAX_DB and more.
 */
export function computeLevels(samples, rate, { columns, rows, minHz, maxHz }) {
  const size = 2 ** Math.round(Math.log2(rate * WINDOW_SECONDS));
  const spectrum = new PowerSpectrum(size);
  const bands = Array.from({ length: rows }, (_, row) => bandOfRow(row, { rows, minHz, maxHz }, rate / size, size / 2));
  const levels = new Uint8Array(columns * rows);
  const powers = new Float64Array(size / 2 + 1);
  const step = samples.length / columns;
  const frames = Math.min(MAX_FRAMES_PER_COLUMN, Math.max(1, Math.ceil(step / size)));
  for (let column = 0; column < columns; column++) {
    powers.fill(0);
    for (let frame = 0; frame < frames; frame++) {
      const centre = (column + (frame + 0.5) / frames) * step;
      spectrum.add(samples, Math.round(centre - size / 2), powers);
    }
    for (let row = 0; row < rows; row++) {
      const power = bands[row] ? highestPower(powers, bands[row]) / frames : 0;
      const level = 10 * Math.log10(power + 1e-20);
      levels[column * rows + row] = Math.max(0, Math.min(255, Math.round((255 * (level - MIN_DB)) / (MAX_DB - MIN_DB))));
    }
  }
  return levels;
}

/** Returns the bins that a row covers, as numbers with fractions; null if its frequency is not in the signal. */
function bandOfRow(row, scale, binHz, lastBin) {
  const low = frequencyOfRow(row + 0.5, scale) / binHz;
  const high = frequencyOfRow(row - 0.5, scale) / binHz;
  return low >= lastBin ? null : { low, high: Math.min(high, lastBin) };
}

function highestPower(powers, { low, high }) {
  // A row between two bins takes what lies on the line between them.
  let highest = Math.max(powerAt(powers, low), powerAt(powers, high));
  for (let bin = Math.ceil(low); bin <= high; bin++) highest = Math.max(highest, powers[bin]);
  return highest;
}

function powerAt(powers, bin) {
  const below = Math.floor(bin);
  const part = bin - below;
  return powers[below] * (1 - part) + (part ? powers[below + 1] * part : 0);
}
