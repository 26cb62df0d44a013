/** Keeps what was written into the form while this tab is open, also across a reload or a sign-in. */

const KEY = "dgx-music-draft";

/** Saves the fields that are not empty. */
export function saveDraft(fields) {
  const entries = fields.map(({ path, control }) => [path, control.type === "checkbox" ? control.checked : control.value]);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(Object.fromEntries(entries.filter(([, value]) => value))));
  } catch {
    // A browser that keeps nothing for this page works nevertheless.
  }
}

/** Returns what was saved, by the paths of the fields. */
export function readDraft() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
  } catch {
    return {};
  }
}
