// Dark, light, or as the system has it. Loaded before the first paint.

import { emit } from "./state.js";

const KEY = "dgx-music-theme";
const THEMES = ["auto", "light", "dark"];
const NAMES = { auto: "As the system", light: "Light", dark: "Dark" };

function stored() {
  try {
    const value = localStorage.getItem(KEY);
    return THEMES.includes(value) ? value : "auto";
  } catch {
    return "auto"; // The browser keeps nothing for this page.
  }
}

function apply(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

let current = stored();
apply(current);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => emit("theme"));

/** The chosen theme: "auto", "light" or "dark". */
export function theme() {
  return current;
}

/** What the chosen theme is called. */
export function themeName() {
  return NAMES[current];
}

/** Chooses the next theme, keeps it for the next visit, and tells what draws with its colours. */
export function nextTheme() {
  current = THEMES[(THEMES.indexOf(current) + 1) % THEMES.length];
  try {
    localStorage.setItem(KEY, current);
  } catch {
    // It holds until the page is left.
  }
  apply(current);
  emit("theme");
}
