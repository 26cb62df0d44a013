/** Brings an error of the server to the field that it names. */

/**
 * Returns the part of the form that has this field of a request, e.g. "requests[0].conditioning.sections[1].prompt": the
 * one with the same path, or else the one that contains it; null if there is none.
 *
 * @template {{path: string}} Part
 * @param {string | null} field
 * @param {Part[]} parts
 * @returns {Part | null}
 */
export function findPart(field, parts) {
  let path = (field ?? "").replace(/^requests\[\d+\]\.?/, "");
  while (path) {
    const part = parts.find((each) => each.path === path);
    if (part) return part;
    const shorter = path.replace(/(\.[^.[]+|\[\d+\])$/, "");
    if (shorter === path) return null;
    path = shorter;
  }
  return null;
}

/** What an error says, as a sentence, without the name of the field: that is where it is shown. */
export function toSentence({ message, field }) {
  const prefix = `${field}: `;
  const words = field && message.startsWith(prefix) ? message.slice(prefix.length) : message;
  const text = words.charAt(0).toUpperCase() + words.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
