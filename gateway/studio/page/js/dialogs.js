// Modal dialogs, by the browser's own <dialog>: it keeps the focus inside and closes on Escape.

import { element as el } from "./dom.js";
import { icon } from "./icons.js";

let number = 0;

/** Whether a dialog is open: the page's keys rest meanwhile. */
export function isDialogOpen() {
  return document.querySelector("dialog[open]") !== null;
}

/**
 * Opens a dialog and resolves when it closes: to the `value` of the action that was chosen, which is its label by
 * default, or to null. An action whose `run` returns false keeps the dialog open.
 */
export function openDialog({ title, body = [], actions = [], wide = false }) {
  const id = `dialog-${(number += 1)}`;
  const dialog = el("dialog", { class: wide ? "dialog wide" : "dialog", "aria-labelledby": id });
  let chosen = null;
  const close = { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => dialog.close() };
  dialog.append(
    el("header", {}, el("h2", { id }, title), el("button", close, icon("close"))),
    el("div", { class: "dialog-body" }, ...body),
  );
  if (actions.length) dialog.append(el("footer", {}, ...actions.map(button)));

  function button({ label, primary = false, danger = false, value = label, run = () => true }) {
    const kind = `button ${primary ? "primary" : ""} ${danger ? "danger" : ""}`;
    const choose = async () => {
      if ((await run()) === false) return;
      chosen = value;
      dialog.close();
    };
    return el("button", { type: "button", class: kind.trim(), autofocus: primary ? "" : null, onclick: choose }, label);
  }

  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && isOutside(dialog, event)) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(chosen);
    });
  });
}

function isOutside(dialog, { clientX, clientY }) {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}

/** Asks whether to go on; resolves to whether the answer was yes. */
export async function confirmDialog({ title, text, action, danger = false }) {
  const body = [el("p", { class: "written", dir: "auto" }, text)];
  const answer = await openDialog({
    title,
    body,
    actions: [
      { label: "Cancel", value: false },
      { label: action, value: true, primary: !danger, danger },
    ],
  });
  return answer === true;
}
