/** What the form does with earlier music: which take, which part of it, and how to stop doing so. */
import { element } from "../dom.js";
import { getTake } from "../state.js";
import { AudioSource } from "./audio_source.js";
import { numberField } from "./field.js";
import { EDIT_KINDS } from "./requests.js";
import { readField } from "./rows.js";

const KINDS = [
  ["", "New music"],
  ["repaint", "Replace a part of"],
  ["extend-right", "Add music after"],
  ["extend-left", "Add music before"],
  ["continue", "Continue, as a take of its own"],
  ["variation", "A variation of"],
];
const HELP = {
  "": "",
  repaint: "Everything outside of this part stays as it is, sample for sample.",
  "extend-right": "The take stays as it is, and new music follows it.",
  "extend-left": "The take stays as it is, and new music leads into it.",
  continue: "The new take follows the end of this one, and does not repeat it.",
  variation: "The same settings with another seed.",
};

export class EditPanel extends EventTarget {
  constructor() {
    super();
    this.kind = element("select", { id: "edit-kind" }, ...KINDS.map(([value, text]) => element("option", { value }, text)));
    this.kind.addEventListener("change", () => this.#show());
    this.source = new AudioSource({ path: "edit.source_id", title: "Earlier music", help: "A finished take, or an audio file." });
    this.source.root.addEventListener("source-changed", () => this.dispatchEvent(new CustomEvent("change")));
    this.start = numberField({ path: "edit.start_seconds", label: "From, s", help: "Or select in the waveform." }, { min: "0" });
    this.end = numberField({ path: "edit.end_seconds", label: "To, s" }, { min: "0" });
    this.added = numberField({ path: "edit.added_seconds", label: "Add, s" }, { min: "0.1", value: "10" });
    this.kept = numberField(
      { path: "continuation.seconds", label: "Listen to, s", help: "How much of its end the model hears, 0.5 to 25." },
      { min: "0.5", max: "25", placeholder: "10" },
    );
    this.fields = [this.start, this.end, this.added, this.kept];
    this.help = element("p", { class: "help", id: "edit-help" });
    this.problem = element("p", { class: "field-error", role: "alert" });
    this.kind.setAttribute("aria-describedby", "edit-help");
    this.inputs = element("div", { class: "fields" }, ...this.fields.map((field) => field.root));
    const choice = element("div", { class: "field wide" }, element("label", { for: "edit-kind" }, "What to make"), this.kind, this.help);
    this.root = element("div", { class: "edit-panel" }, choice, this.source.root, this.inputs, this.problem);
    this.#show();
  }

  get isActive() {
    return this.kind.value !== "";
  }

  /** The edit, as `buildRequests` takes it; null for new music. Throws Error, with `field` at fault. */
  get value() {
    const kind = this.kind.value;
    if (!kind) return null;
    const { source } = this.source;
    if (!source) throw Object.assign(new Error("Choose the take or the file first."), { field: this.source });
    const [start, end, added, seconds] = this.fields.map((field) => (field.root.hidden ? undefined : readField(field)));
    return { kind, id: source.id, start, end, added, seconds, original: getTake(source.id) };
  }

  /** Begins an edit of this take; `start` and `end` in seconds are those of the part, if one is selected. */
  begin(kind, take, { start, end } = {}) {
    this.kind.value = kind;
    this.source.useTake(take);
    this.setRange(start === undefined ? null : [start, end]);
    this.#show();
  }

  /** Shows the edit or the continuation that made this take, if it was made by one. */
  restore({ edit, continuation }) {
    const kind = edit ? Object.keys(EDIT_KINDS).find((name) => EDIT_KINDS[name] === edit.kind) : continuation && "continue";
    if (!kind) return;
    const { sourceId } = edit ?? continuation;
    const { prompt = "earlier audio", durationSeconds } = getTake(sourceId) ?? {};
    this.kind.value = kind;
    this.source.use({ id: sourceId, name: prompt.slice(0, 60), seconds: durationSeconds });
    if (kind === "repaint") this.setRange([edit.startSeconds, edit.endSeconds]);
    else if (edit) this.added.value = edit.addedSeconds;
    else this.kept.value = continuation.seconds;
    this.#show();
  }

  /** Takes over what is selected in the waveform. */
  setRange(range) {
    this.start.value = range ? range[0].toFixed(2) : "";
    this.end.value = range ? range[1].toFixed(2) : "";
  }

  clear() {
    this.kind.value = "";
    this.source.clear();
    this.#show();
  }

  setError(message) {
    this.problem.textContent = message;
  }

  focus() {
    this.kind.focus();
  }

  #show() {
    const kind = this.kind.value;
    this.help.textContent = HELP[kind];
    this.source.root.hidden = !kind;
    this.start.root.hidden = this.end.root.hidden = kind !== "repaint";
    this.added.root.hidden = kind !== "extend-left" && kind !== "extend-right";
    this.kept.root.hidden = kind !== "continue";
    this.inputs.hidden = this.fields.every((field) => field.root.hidden);
    this.setError("");
    this.dispatchEvent(new CustomEvent("change"));
  }
}
