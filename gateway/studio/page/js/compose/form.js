/** The form: describes music, and asks the server for it. */
import { ApiError, call } from "../api.js";
import { byId, element } from "../dom.js";
import { showView } from "../routing.js";
import { emit, getTake, on, putTake } from "../state.js";
import { readDraft, saveDraft } from "./draft.js";
import { EditPanel } from "./edit_panel.js";
import { findPart, toSentence } from "./form_errors.js";
import { buildFields } from "./form_fields.js";
import { describeModel, models } from "./model_choice.js";
import { buildRequests, valuesOf } from "./requests.js";
import { readField } from "./rows.js";

/** What a part of the form needs of the model. */
const NEEDS = {
  "conditioning.negative_prompt": "CAPABILITY_NEGATIVE_PROMPT",
  "conditioning.further_prompts": "CAPABILITY_WEIGHTED_PROMPTS",
  "conditioning.prompt_weight": "CAPABILITY_WEIGHTED_PROMPTS",
  "conditioning.sections": "CAPABILITY_SECTIONS",
  "conditioning.melody": "CAPABILITY_MELODY",
  "conditioning.style": "CAPABILITY_STYLE",
  "conditioning.adapters": "CAPABILITY_ADAPTERS",
  "conditioning.lyrics": "CAPABILITY_LYRICS",
  "conditioning.steps": "CAPABILITY_STEPS",
};
/** What means nothing in new music within an older take. */
const NOT_IN_EDITS = ["conditioning.sections", "conditioning.melody"];
/** How soon to ask for the models again while the server is away. */
const RELOAD_MS = 3000;
const EDITS = new Set(["repaint", "extend-left", "extend-right"]);

export class ComposeForm {
  #edit = new EditPanel();
  #groups;
  #parts;
  #isSending = false;
  #unsent = null;

  constructor(region) {
    const { fields, rows, sources, groups } = buildFields();
    this.#groups = groups;
    this.fields = fields;
    this.rows = rows;
    this.sources = sources;
    this.#parts = Object.fromEntries([...fields, ...rows, ...Object.values(sources)].map((part) => [part.path, part]));
    this.listen = element("input", { type: "checkbox", id: "listen-live", checked: true });
    this.submit = element("button", { type: "submit", class: "button primary" }, "Generate");
    this.problem = element("p", { class: "form-error", role: "alert", tabindex: "-1" });
    this.status = element("p", { class: "visually-hidden", role: "status" });
    this.root = element(
      "form",
      { class: "compose-form", novalidate: true, "aria-labelledby": "compose-title" },
      groups[0],
      this.#edit.root,
      ...groups.slice(1),
      this.problem,
      element(
        "div",
        { class: "actions" },
        this.submit,
        element("div", { class: "field check" }, this.listen, element("label", { for: "listen-live" }, "Listen live")),
        element("button", { type: "button", class: "button small", onclick: () => this.reset() }, "Clear"),
      ),
      this.status,
      element("datalist", { id: "adapter-names" }),
    );
    region.append(this.root);
    this.#listen();
    const draft = readDraft();
    for (const field of this.fields) if (draft[field.path]) field.value = draft[field.path];
    this.loadModels();
  }

  #listen() {
    this.root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.root.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.send();
    });
    this.root.addEventListener("input", () => {
      this.#unsent = null;
      saveDraft(this.fields);
    });
    this.#parts.model_name.control.addEventListener("change", () => this.#fit());
    this.#parts["loop.bars"].control.addEventListener("input", () => this.#fit());
    this.#edit.addEventListener("change", () => this.#fit());
    on("reuse", ({ generation }) => {
      this.fill(generation);
      this.#edit.restore(generation);
    });
    on("edit", ({ id, kind, start, end }) => this.begin(kind, getTake(id), { start, end }));
    on("range", ({ id, range }) => this.#edit.source.source?.id === id && this.#edit.setRange(range));
    // A file that misses its place would replace the page.
    for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());
  }

  /** Asks which models there are, again after the server was away. */
  async loadModels() {
    try {
      await models.load();
    } catch (error) {
      this.#report(error);
      if (error.isPassing) setTimeout(() => this.loadModels(), RELOAD_MS);
      return;
    }
    this.problem.textContent = "";
    const { control } = this.#parts.model_name;
    const chosen = control.value || readDraft().model_name;
    control.replaceChildren(
      ...models.choices.map(({ value, text, disabled, title }) => element("option", { value, disabled, title }, text)),
    );
    control.value = models.find(chosen)?.name ?? "";
    this.#fit();
  }

  get model() {
    return models.find(this.#parts.model_name.control.value);
  }

  /** Fills the form with what made a take. */
  fill(generation) {
    this.reset();
    for (const [path, value] of Object.entries(valuesOf(generation))) if (value !== undefined && this.#parts[path]) this.#parts[path].value = value;
    for (const name of ["melody", "style"]) {
      const { sourceId, startSeconds, textGuidance } = generation.conditioning?.[name] ?? {};
      if (!sourceId) continue;
      const { prompt = "earlier audio", durationSeconds } = getTake(sourceId) ?? {};
      this.sources[name].use({ id: sourceId, name: prompt.slice(0, 60), seconds: durationSeconds });
      this.sources[name].fields.startSeconds.value = startSeconds || "";
      if (textGuidance && this.sources[name].fields.textGuidance) this.sources[name].fields.textGuidance.value = textGuidance;
    }
    this.#fit();
    showView("compose");
    this.#parts.prompt.focus();
  }

  /** Begins an edit of a take, or takes it as a melody or a style. */
  begin(kind, take, range) {
    if (!take) return;
    if (kind in this.sources) {
      this.#useModelFor(`CAPABILITY_${kind.toUpperCase()}`);
      this.sources[kind].useTake(take);
      showView("compose");
      this.sources[kind].focus();
      return;
    }
    this.fill(take);
    this.#parts.seed.value = "";
    if (kind === "continue") this.#parts.duration_seconds.value = "";
    if (kind !== "variation") {
      for (const path of NOT_IN_EDITS) this.#parts[path].value !== undefined && (this.#parts[path].value = []);
      this.sources.melody.clear();
      this.#parts["loop.bars"].value = "";
      this.#useModelFor("CAPABILITY_CONTINUATION");
    }
    this.#edit.begin(kind, take, range);
    this.#fit();
    this.#parts.prompt.focus();
  }

  /** Takes a model that can do that, if this one can't. */
  #useModelFor(capability) {
    const able = models.able(capability, this.model);
    if (able) this.#parts.model_name.value = able.name;
    this.#fit();
  }

  reset() {
    for (const field of this.fields) if (field.path !== "model_name") field.value = field.path === "count" ? "1" : "";
    for (const row of this.rows) row.value = [];
    for (const source of Object.values(this.sources)) source.clear();
    this.#edit.clear();
    this.#clearErrors();
    this.#unsent = null;
    saveDraft(this.fields);
    this.#fit();
  }

  /** Enables what the model can do, and says of the rest why not. */
  #fit() {
    const { model } = this;
    const kind = this.#edit.kind.value;
    this.#parts.model_name.setHelp(describeModel(model));
    for (const [path, capability] of Object.entries(NEEDS)) this.#parts[path].setUnavailable(models.whyNot(capability, model));
    this.#placeEdit();
    const isEdit = EDITS.has(kind);
    if (isEdit) for (const path of NOT_IN_EDITS) this.#parts[path].setUnavailable("This can't be used in an edit.");
    const bars = this.#parts["loop.bars"];
    bars.setUnavailable(isEdit || kind === "continue" ? "A loop is made as new music." : "");
    const duration = this.#parts.duration_seconds;
    if (isEdit) duration.setUnavailable("It follows from the earlier music.");
    else duration.setUnavailable(bars.control.value && !bars.control.disabled ? "It follows from the bars and the tempo." : "");
    const most = kind === "continue" ? model?.maxContinuationSeconds : model?.maxDurationSeconds;
    duration.control.max = most || 3600;
    if (most) duration.setHelp(`At most ${most.toLocaleString()} s. Empty: 16 s, or what the model can.`);
    const needsContinuation = kind && kind !== "variation";
    this.#edit.setError(needsContinuation ? models.whyNot("CAPABILITY_CONTINUATION", model) : "");
    const adapters = (model?.adapters ?? []).filter((adapter) => !adapter.problem);
    byId("adapter-names")?.replaceChildren(...adapters.map(({ name }) => element("option", { value: name })));
  }

  /** What is made of earlier music comes first while it is being described. */
  #placeEdit() {
    const { root, isActive } = this.#edit;
    const before = isActive ? this.root.firstElementChild : this.#groups[1];
    if (root === before || root.nextElementSibling === before) return;
    const focused = document.activeElement;
    this.root.insertBefore(root, before);
    if (root.contains(focused)) focused.focus();
  }

  /** Sends the request, again with the same ids if it is not known whether the server got it. */
  async send() {
    if (this.#isSending) return;
    this.#clearErrors();
    let requests;
    try {
      requests = this.#unsent ?? this.#build();
    } catch (error) {
      if (!error.field) throw error;
      error.field.setError(error.message);
      error.field.focus();
      return;
    }
    this.#setSending(true);
    try {
      const { generations } = await call("BatchCreateGenerations", { requests });
      this.#unsent = null;
      this.#tell(generations);
    } catch (error) {
      this.#unsent = error.code === "UNAVAILABLE" ? requests : null;
      this.#report(error);
    } finally {
      this.#setSending(false);
    }
  }

  #build() {
    const uploading = [...Object.values(this.sources), this.#edit.source].find((source) => source.isUploading);
    if (uploading) throw Object.assign(new Error("Wait for the upload to end."), { field: uploading });
    const edit = this.#edit.value;
    const values = {};
    for (const field of this.fields) values[field.path] = readField(field);
    for (const row of this.rows) values[row.path] = row.value;
    for (const { path, source, fields, isAvailable } of Object.values(this.sources)) {
      if (!source || !isAvailable) continue;
      const entries = Object.entries(fields).map(([name, field]) => [name, readField(field)]);
      values[path] = { sourceId: source.id, ...Object.fromEntries(entries.filter(([, value]) => value !== undefined)) };
    }
    if (!values.prompt) throw Object.assign(new Error("Describe the music first."), { field: this.#parts.prompt });
    return buildRequests(values, edit);
  }

  #tell(generations) {
    for (const generation of generations) putTake(generation);
    const [first] = generations;
    emit("select", { id: first.id, generation: first, show: true });
    if (this.listen.checked) emit("play", { id: first.id });
    this.status.textContent = generations.length === 1 ? "The take is queued." : `${generations.length} takes are queued.`;
  }

  #report(error) {
    if (!(error instanceof ApiError)) throw error;
    const message = toSentence(error);
    const parts = Object.values(this.#parts);
    for (const row of this.rows) parts.push(...row.fields);
    for (const source of Object.values(this.sources)) parts.push(...Object.values(source.fields));
    const edits = [...this.#edit.fields, this.#edit.source, { path: "continuation", ...panel(this.#edit) }];
    const part = findPart(error.field, [...parts, ...edits, { path: "edit", ...panel(this.#edit) }]);
    if (part) {
      part.setError(message);
      part.focus();
      return;
    }
    const later = error.retryAfterSeconds ? ` Try again in ${Math.ceil(error.retryAfterSeconds)} s.` : "";
    this.problem.textContent = (error.field ? `${error.field}: ${message}` : message) + later;
    this.problem.focus();
  }

  #clearErrors() {
    this.problem.textContent = this.status.textContent = "";
    const parts = [...Object.values(this.#parts), ...this.rows.flatMap((row) => row.fields), ...this.#edit.fields, this.#edit];
    for (const part of parts) part.setError("");
  }

  #setSending(isSending) {
    this.#isSending = isSending;
    this.submit.setAttribute("aria-busy", String(isSending));
  }
}

function panel(edit) {
  return { setError: (message) => edit.setError(message), focus: () => edit.focus() };
}
