// Asks what a session for a DAW should hold, and saves it.

import { openDialog } from "../dialogs.js";
import { element as el } from "../dom.js";
import { save } from "./downloads.js";

const FORMATS = [
  ["", "All of them", "One folder that each of these programs opens."],
  ["dawproject", "DAWproject", "Bitwig Studio, Studio One, Cubase and others."],
  ["ardour", "Ardour", ""],
  ["reaper", "REAPER", ""],
];
const PARTS = [
  ["stems", "Stems", "Drums, bass, chords and melody on tracks of their own, where the model has them."],
  ["midi", "Notes as MIDI", "A track of notes below each take, where the model knows them."],
];

function option(type, name, value, label, help, isChecked) {
  const input = el("input", { type, name, value, checked: isChecked });
  const text = el("span", {}, label, help ? el("span", { class: "help" }, ` ${help}`) : null);
  return [input, el("label", { class: "check" }, input, text)];
}

/** Asks, and saves a session with these takes, which are finished: a track for each, with tempo, key and sections. */
export async function saveSession(generations) {
  const formats = FORMATS.map(([value, label, help], index) =>
    option("radio", "session-format", value, label, help, index === 0),
  );
  const parts = PARTS.map(([name, label, help]) => option("checkbox", name, "1", label, help, false));
  const count = generations.length;
  const group = (title, options) =>
    el("fieldset", { class: "choices" }, el("legend", {}, title), ...options.map(([, label]) => label));
  const isWanted = await openDialog({
    title: "Save as a session",
    body: [
      el(
        "p",
        {},
        `${count === 1 ? "This take" : `These ${count} takes`} on a track each, with tempo map, key and markers for the sections, and the audio as WAV.`,
      ),
      group("For", formats),
      group("With", parts),
    ],
    actions: [
      { label: "Cancel", value: false },
      { label: "Save", value: true, primary: true },
    ],
  });
  if (!isWanted) return;
  const query = new URLSearchParams(generations.map(({ id }) => ["id", id]));
  const [{ value: format }] = formats.map(([input]) => input).filter(({ checked }) => checked);
  if (format) query.append("format", format);
  for (const [{ name, checked }] of parts) if (checked) query.append(name, "1");
  await save(`/api/session?${query}`, { name: "dgx-music-session.zip", what: "session" });
}
