// What takes are called in a comparison.

import { element } from "../dom.js";

const MAX_CHARACTERS = 90;

/** The prompt of a generation in one line, cut where it is long. */
export function titleOf(generation) {
  const text = (generation.prompt ?? "").replace(/\s+/g, " ").trim();
  const characters = [...text];
  return characters.length > MAX_CHARACTERS ? `${characters.slice(0, MAX_CHARACTERS - 1).join("")}…` : text;
}

/** Model and seed, which tell takes of one prompt apart. */
export function originOf(generation) {
  return [generation.modelName, `seed ${generation.seed}`].filter(Boolean).join(" · ");
}

/** Prompt, model and seed. What a prompt has of directions of writing ends with it. */
export function nameParts(generation) {
  return [element("bdi", {}, titleOf(generation)), ` (${originOf(generation)})`];
}

/** A level with a sign and one decimal: "−1.3 dB". */
export function formatGain(decibels) {
  const rounded = Math.round(decibels * 10) / 10;
  return `${rounded < 0 ? "−" : rounded > 0 ? "+" : "±"}${Math.abs(rounded).toFixed(1)} dB`;
}

/** A value of a curve with one decimal and a true minus sign; a dash if there is none. */
export function formatValue(value, lowest) {
  if (value === null || value === undefined) return "–";
  return value <= lowest ? "silent" : value.toFixed(1).replace("-", "−");
}

/** A time with tenths of a second: "1:05.3". */
export function formatExactTime(seconds) {
  const tenths = Math.max(0, Math.floor(seconds * 10 + 1e-6));
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}
