/** The commands that make a take again exactly: for a shell, for buf curl, and in Python. */
import { ApiError, getJson } from "../api.js";
import { element } from "../dom.js";

const KINDS = [
  ["command_line", "Command line"],
  ["buf_curl", "buf curl"],
  ["python", "Python"],
];

export class RepeatCommands {
  #id = "";
  #shown = "";

  constructor() {
    this.body = element("div", { class: "commands" });
    this.status = element("p", { class: "help", role: "status" });
    this.root = element("details", { class: "more repeat" }, element("summary", {}, "Repeat this take elsewhere"), this.body, this.status);
    this.root.addEventListener("toggle", () => this.root.open && this.#load());
  }

  show({ id }) {
    if (id === this.#id) return;
    this.#id = id;
    if (this.root.open) this.#load();
  }

  async #load() {
    const id = this.#id;
    if (!id || id === this.#shown) return;
    this.body.replaceChildren();
    this.status.textContent = "";
    try {
      const commands = await getJson(`/api/generations/${encodeURIComponent(id)}/commands`);
      if (id !== this.#id) return;
      this.#shown = id;
      this.body.replaceChildren(...KINDS.filter(([kind]) => commands[kind]).map(([kind, name]) => this.#show(name, commands[kind])));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.status.textContent = error.message;
    }
  }

  #show(name, text) {
    const copy = element("button", { type: "button", class: "button small", "aria-label": `Copy: ${name}` }, "Copy");
    const code = element("pre", { tabindex: "0", role: "region", "aria-label": name }, text);
    copy.addEventListener("click", async () => {
      const isCopied = await copyText(text, code);
      this.status.textContent = isCopied ? `${name}: copied.` : "The text is selected; copy it with Ctrl+C.";
    });
    return element("div", { class: "command" }, element("h3", {}, name), copy, code);
  }
}

/** Copies a text. Where the browser forbids that, as over plain HTTP from elsewhere, selects it, and returns false. */
async function copyText(text, node) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(node);
    return false;
  }
}
