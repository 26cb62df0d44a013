// Builds elements, and words values. Texts become text: nothing here takes HTML.

const policy = globalThis.trustedTypes?.createPolicy("dgx-studio", {
  createScriptURL(path) {
    if (!/^\/static\/js\/[\w/-]+\.js$/.test(path)) throw new TypeError(`${path} is no script of the Studio`);
    return path;
  },
});

/** Returns the URL of a script below /static/js/ for a Worker, e.g. `new Worker(scriptUrl("/static/js/drawing/x.js"))`. */
export function scriptUrl(path) {
  return policy ? policy.createScriptURL(path) : path;
}

/**
 * Returns an element. `properties` are attributes; `class`, `dataset`, `style` (an object) and `on…` (listeners) mean
 * what they say, `true` sets an empty attribute, and false, null and undefined set none. Children are elements or texts.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "dataset") Object.assign(made.dataset, value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) made.style.setProperty(key, text);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Returns the element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Words a time as m:ss, or h:mm:ss from an hour on. */
export function formatTime(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0"));
  return whole < 3600 ? `${Math.floor(whole / 60)}:${parts[1]}` : `${Math.floor(whole / 3600)}:${parts.join(":")}`;
}

/** Words a level, e.g. formatLevel(-14.03, "LUFS") is "−14.0 LUFS"; a dash if there is none. */
export function formatLevel(value, unit) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  return `${value.toFixed(1).replace("-", "−")} ${unit}`;
}

/** Words a date of protobuf's JSON as this browser's user writes dates. */
export function formatDate(text) {
  const date = new Date(text ?? "");
  return Number.isNaN(date.getTime()) ? "–" : date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

/** Words a number of bytes. */
export function formatBytes(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [value, unit] = [Number(bytes), 0];
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
