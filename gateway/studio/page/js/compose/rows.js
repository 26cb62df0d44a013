/** Rows of fields that the user adds and removes, e.g. the sections of the music. */
import { element } from "../dom.js";

export class Rows {
  #list = element("div", { class: "rows" });
  #rows = [];
  #reason = "";

  /**
   * @param {{path: string, title: string, help: string, addLabel: string, most: number,
   *   build: (index: number, rows: any[]) => Record<string, import("./field.js").Field>}} about
   *   `build` makes the fields of a new row; its keys are the fields of the message in the request.
   */
  constructor({ path, title, help, addLabel, most, build }) {
    Object.assign(this, { path, most, build, help });
    this.add = element("button", { type: "button", class: "button small", onclick: () => this.#append(true) }, addLabel);
    this.note = element("p", { class: "help" }, help);
    this.problem = element("p", { class: "field-error", role: "alert" });
    this.root = element("fieldset", { class: "group" }, element("legend", {}, title), this.note, this.#list, this.problem);
    this.root.append(this.add);
  }

  /** All fields, with the paths that they have now. */
  get fields() {
    return this.#rows.flatMap(({ fields }) => Object.values(fields));
  }

  /** The messages of the rows in the request; undefined if there are none. Throws Error with `field` at fault. */
  get value() {
    if (this.#reason || !this.#rows.length) return undefined;
    return this.#rows.map(({ fields }) => {
      const entries = Object.entries(fields).map(([name, field]) => [name, readField(field)]);
      return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
    });
  }

  /** Replaces the rows by those of these messages. */
  set value(messages) {
    for (const row of [...this.#rows]) this.#remove(row);
    for (const message of messages ?? []) {
      const row = this.#append(false);
      for (const [name, field] of Object.entries(row.fields)) field.value = message[name];
    }
  }

  setUnavailable(reason) {
    this.#reason = reason;
    this.note.textContent = reason || this.help;
    this.root.classList.toggle("unavailable", Boolean(reason));
    this.root.disabled = Boolean(reason);
  }

  setError(message) {
    this.problem.textContent = message;
  }

  focus() {
    for (let node = this.root; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    (this.fields[0]?.control ?? this.add).focus();
  }

  #append(isByUser) {
    const fields = this.build(this.#rows.length, this.#rows.map((row) => row.fields));
    const row = { fields };
    const remove = element("button", { type: "button", class: "button small", onclick: () => this.#remove(row, true) });
    row.remove = remove;
    remove.textContent = "Remove";
    row.root = element("div", { class: "section-row", role: "group" }, ...Object.values(fields).map((each) => each.root), remove);
    this.#rows.push(row);
    this.#list.append(row.root);
    this.#number();
    if (isByUser) Object.values(fields)[0].control.focus();
    return row;
  }

  #remove(row, isByUser = false) {
    const index = this.#rows.indexOf(row);
    this.#rows.splice(index, 1);
    row.root.remove();
    this.#number();
    if (isByUser) (this.#rows[Math.min(index, this.#rows.length - 1)]?.remove ?? this.add).focus();
  }

  #number() {
    this.#rows.forEach(({ fields, root, remove }, index) => {
      root.setAttribute("aria-label", `${index + 1}`);
      remove.setAttribute("aria-label", `Remove row ${index + 1}`);
      for (const [name, field] of Object.entries(fields)) field.path = `${this.path}[${index}].${snakeCase(name)}`;
    });
    this.add.hidden = this.#rows.length >= this.most;
    this.setError("");
  }
}

/** The value of a field. Throws Error with `field`, the field at fault. */
export function readField(field) {
  try {
    return field.value;
  } catch (error) {
    throw Object.assign(error, { field });
  }
}

function snakeCase(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
