// The elements of the region in which takes are compared.

import { element } from "../dom.js";

const RANKING_HELP = "Best first. Drag the takes, use their arrows, or Shift+↑ and Shift+↓ for the one that is heard.";

/** Returns a button that does something again. */
export function retryButton(again) {
  return element("button", { type: "button", class: "button small", onclick: again }, "Try again");
}

/**
 * Fills `root` with the parts of the view, and returns the elements that it changes: title, problem, status, spoken,
 * save and body.
 */
export function layOut(root, { takes, transport, plots, ranking, results, onClose, onSave }) {
  const status = element("p", { class: "compare-status", role: "status" });
  const problem = element("p", { class: "notice error", role: "alert", hidden: true });
  const spoken = element("p", { class: "visually-hidden", role: "status" });
  const save = element("button", { type: "button", class: "button primary", onclick: onSave }, "Save the ranking");
  const rank = element(
    "section",
    { class: "compare-rank", "aria-labelledby": "compare-rank-title" },
    element("h3", { id: "compare-rank-title" }, "Ranking"),
    element("p", { class: "help" }, RANKING_HELP),
    ranking.list,
    element("div", { class: "toolbar" }, save),
  );
  const body = element("div", { class: "compare-body" }, takes.node, transport.node, status, plots.node, rank);
  const close = { type: "button", class: "button small", "aria-label": "Close the comparison", onclick: onClose };
  const title = root.querySelector("h2") ?? element("h2", { id: "compare-title" }, "Compare");
  title.tabIndex = -1; // It gets the focus when the comparison opens.
  const spacer = element("span", { class: "spacer" });
  const head = element("header", { class: "toolbar compare-head" }, title, spacer, element("button", close, "Close"));
  root.replaceChildren(head, problem, spoken, body, results.node);
  return { title, status, problem, spoken, save, body };
}
