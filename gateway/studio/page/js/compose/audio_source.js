/** Audio that the music shall follow or continue: a file that is dropped or chosen, or a take of the history. */
import { ApiError, request } from "../api.js";
import { element } from "../dom.js";
import { getTake, selectedId } from "../state.js";
import { toSentence } from "./form_errors.js";

/** What a drag of a take carries, beside what other programs understand. */
export const TAKE_TYPE = "application/x-dgx-music-take";

export class AudioSource {
  /** {id, name, seconds} or null. */
  source = null;
  #reason = "";
  #upload = null;

  /** @param {{path: string, title: string, help: string, fields?: Record<string, import("./field.js").Field>}} about */
  constructor({ path, title, help, fields = {} }) {
    Object.assign(this, { path, help, fields });
    this.file = element("input", { type: "file", class: "visually-hidden", accept: "audio/*,.flac,.wv,.w64,.caf,.au" });
    this.file.setAttribute("aria-label", `${title}: choose an audio file`);
    this.file.addEventListener("change", () => this.file.files.length && this.upload(this.file.files[0]));
    const choose = element("label", { class: "button small" }, "Choose a file", this.file);
    this.take = element("button", { type: "button", class: "button small", onclick: () => this.#useSelected() });
    this.take.textContent = "Use the selected take";
    this.prompt = element("span", { class: "drop-text" }, "Drop audio here, or");
    this.zone = element("div", { class: "drop" }, this.prompt, choose, this.take);
    this.name = element("span", { class: "source-name" });
    const remove = element("button", { type: "button", class: "button small", onclick: () => this.clear(true) }, "Remove");
    this.chip = element("div", { class: "source-chip", hidden: true }, this.name, remove);
    this.details = element("div", { class: "fields", hidden: true }, ...Object.values(fields).map((field) => field.root));
    this.note = element("p", { class: "help" }, help);
    this.problem = element("p", { class: "field-error", role: "alert" });
    this.root = element("fieldset", { class: "group" }, element("legend", {}, title), this.note, this.zone, this.chip);
    this.root.append(this.details, this.problem);
    this.#acceptDrops();
  }

  get isUploading() {
    return this.#upload !== null;
  }

  get isAvailable() {
    return !this.#reason;
  }

  /** Takes a generation or a clip. */
  use({ id, name, seconds }) {
    this.source = { id, name, seconds };
    this.#show();
  }

  clear(isByUser = false) {
    this.#upload?.abort();
    this.#upload = null;
    this.source = null;
    this.file.value = "";
    this.#show();
    if (isByUser) this.file.focus();
  }

  setError(message) {
    this.problem.textContent = message;
  }

  setUnavailable(reason) {
    this.#reason = reason;
    this.note.textContent = reason || this.help;
    this.root.disabled = Boolean(reason);
    this.root.classList.toggle("unavailable", Boolean(reason));
  }

  focus() {
    for (let node = this.root; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    this.file.focus();
  }

  /** Uploads a file as a clip, and takes that. */
  async upload(file) {
    this.clear();
    const upload = new AbortController();
    this.#upload = upload;
    this.name.textContent = `Uploading ${file.name} …`;
    this.#show();
    try {
      const response = await request("/api/clips", { method: "POST", body: file, signal: upload.signal });
      const clip = await response.json();
      if (this.#upload !== upload) return;
      this.#upload = null;
      this.use({ id: clip.clipId, name: file.name, seconds: clip.durationSeconds });
    } catch (error) {
      if (this.#upload !== upload) return;
      this.clear();
      this.setError(error instanceof ApiError ? `${file.name}: ${toSentence(error)}` : `${file.name} could not be read.`);
    }
  }

  #useSelected() {
    const take = getTake(selectedId());
    if (take?.state === "GENERATION_STATE_COMPLETED") this.useTake(take);
    else this.setError("Select a finished take in the history first.");
  }

  useTake(take) {
    this.use({ id: take.id, name: `“${take.prompt.slice(0, 60)}”`, seconds: take.durationSeconds });
  }

  #show() {
    const { source } = this;
    this.setError("");
    this.zone.hidden = Boolean(source) || this.isUploading;
    this.chip.hidden = !this.zone.hidden;
    this.details.hidden = !source || !Object.keys(this.fields).length;
    if (source) this.name.textContent = `${source.name}${source.seconds ? ` (${source.seconds.toFixed(1)} s)` : ""}`;
    this.root.dispatchEvent(new CustomEvent("source-changed"));
  }

  #acceptDrops() {
    let depth = 0;
    const mark = (change) => {
      depth = Math.max(0, depth + change);
      this.zone.classList.toggle("over", depth > 0);
    };
    this.zone.addEventListener("dragenter", () => mark(1));
    this.zone.addEventListener("dragleave", () => mark(-1));
    this.zone.addEventListener("dragover", (event) => event.preventDefault());
    this.zone.addEventListener("drop", (event) => {
      event.preventDefault();
      mark(-depth);
      if (!this.isAvailable) return;
      const take = getTake(event.dataTransfer.getData(TAKE_TYPE));
      if (take) this.useTake(take);
      else if (event.dataTransfer.files.length) this.upload(event.dataTransfer.files[0]);
    });
  }
}
