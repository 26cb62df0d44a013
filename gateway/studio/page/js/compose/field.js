/**
 * One field of the form: its label, its control, a line of help, and the error that the server has about it.
 *
 * `path` is the field of the request in snake_case, e.g. "sampling.temperature"; by it, an error finds its place.
 */
import { element } from "../dom.js";

let count = 0;

export class Field {
  #help;
  #error;
  #reason = "";

  /**
   * @param {{path: string, label: string, help?: string, control: HTMLElement, parse?: (text: string) => any, wide?: boolean}}
   *   about `parse` reads the control's text, and throws Error with what to write instead.
   */
  constructor({ path, label, help = "", control, parse = (text) => text, wide = false }) {
    const id = `field-${(count += 1)}`;
    Object.assign(this, { path, control, parse, help });
    control.id = path === "prompt" ? "prompt" : id;
    this.#help = element("p", { class: "help", id: `${id}-help` }, help);
    this.#error = element("p", { class: "field-error", id: `${id}-error`, role: "alert" });
    const isCheckbox = control.type === "checkbox";
    const name = element("label", { for: control.id }, label);
    this.root = element("div", { class: `field${wide ? " wide" : ""}${isCheckbox ? " check" : ""}` });
    this.root.append(...(isCheckbox ? [control, name] : [name, control]), this.#help, this.#error);
    control.addEventListener("input", () => this.setError(""));
    this.#describe();
  }

  /** What was entered; undefined if nothing was or if it is unavailable. Throws Error if it can't be read. */
  get value() {
    const { control } = this;
    if (this.#reason || control.disabled) return undefined;
    if (control.type === "checkbox") return control.checked || undefined;
    if (control.validity?.badInput) throw new Error("This is not a number.");
    const text = control.value;
    return text.trim() === "" ? undefined : this.parse(text);
  }

  set value(value) {
    if (this.control.type === "checkbox") this.control.checked = Boolean(value);
    else this.control.value = value ?? "";
    this.setError("");
  }

  /** Shows an error at the field, or none. */
  setError(message) {
    this.#error.textContent = message;
    this.root.classList.toggle("invalid", Boolean(message));
    this.control.toggleAttribute("aria-invalid", false);
    if (message) this.control.setAttribute("aria-invalid", "true");
    this.#describe();
  }

  /** Disables the field and says why, or enables it again. What was entered remains. */
  setUnavailable(reason) {
    this.#reason = reason;
    this.control.disabled = Boolean(reason);
    this.root.classList.toggle("unavailable", Boolean(reason));
    this.#help.textContent = reason || this.help;
    if (reason) this.setError("");
  }

  setHelp(help) {
    this.help = help;
    if (!this.#reason) this.#help.textContent = help;
  }

  focus() {
    // An error in a part of the form that is folded opens it.
    for (let node = this.root; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    this.control.focus();
  }

  #describe() {
    const ids = [this.#help.textContent && this.#help.id, this.#error.textContent && this.#error.id].filter(Boolean);
    this.control.setAttribute("aria-describedby", ids.join(" "));
  }
}

/** A field for text of one line. */
export function textField(about, properties = {}) {
  return new Field({ ...about, control: element("input", { type: "text", autocomplete: "off", ...properties }) });
}

/** A field for text of several lines. */
export function areaField(about, properties = {}) {
  return new Field({ ...about, wide: true, control: element("textarea", { rows: "3", ...properties }) });
}

/** A field for a number. The server checks its range, and says what is allowed. */
export function numberField(about, properties = {}) {
  const control = element("input", { type: "number", step: "any", autocomplete: "off", ...properties });
  return new Field({ ...about, control, parse: Number });
}

/** A field for one of several choices, pairs of value and text. */
export function choiceField(about, choices) {
  const options = choices.map(([value, text]) => element("option", { value }, text));
  return new Field({ ...about, control: element("select", {}, ...options) });
}

/** A field for yes or no. */
export function checkField(about, properties = {}) {
  return new Field({ ...about, control: element("input", { type: "checkbox", ...properties }) });
}
