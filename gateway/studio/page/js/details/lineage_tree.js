// What a take was made from and what was made from it, as a tree for mouse, keyboard and screen reader.

import { call } from "../api.js";
import { element as el } from "../dom.js";
import { formatAgo, shorten, stateName } from "../formats.js";
import { icon } from "../icons.js";
import { emit } from "../state.js";

const RELATIONS = {
  LINEAGE_RELATION_CONTINUATION: "continues",
  LINEAGE_RELATION_MELODY: "melody of",
  LINEAGE_RELATION_STYLE: "style of",
  LINEAGE_RELATION_EXTENSION: "extends",
  LINEAGE_RELATION_REPAINT: "repaints",
  LINEAGE_RELATION_VARIATION: "variation of",
};
const MAX_INDENT = 10;

/**
 * Returns the nodes in the order in which a tree shows them, each as {node, relation, depth, position, siblings, also}.
 * A node with several parents is below the first of them that is known; `also` names the others. Nodes are those of
 * GetLineage: parents come before their children.
 */
export function arrange(nodes) {
  const known = new Map(nodes.map((node) => [node.id, node]));
  const children = new Map([["", []]]);
  for (const node of nodes) {
    const parents = (node.parents ?? []).filter(({ id }) => known.has(id));
    const [first, ...also] = parents;
    const key = first?.id ?? "";
    if (!children.has(key)) children.set(key, []);
    children.get(key).push({ node, relation: first?.relation ?? "", also });
  }
  const arranged = [];
  const stack = [{ members: children.get(""), index: 0 }];
  while (stack.length) {
    const level = stack.at(-1);
    if (level.index === level.members.length) {
      stack.pop();
      continue;
    }
    const entry = level.members[level.index];
    level.index += 1;
    const below = children.get(entry.node.id) ?? [];
    arranged.push({
      ...entry,
      depth: stack.length - 1,
      position: level.index,
      siblings: level.members.length,
      isParent: below.length > 0,
    });
    if (below.length) stack.push({ members: below, index: 0 });
  }
  return arranged;
}

/** Returns the lineage of a take as an element, or null if it has none. */
export async function createLineage(id, { signal } = {}) {
  const { nodes = [], isTruncated } = await call("GetLineage", { id }, { signal });
  if (nodes.length < 2) return null;
  const tree = new LineageTree(arrange(nodes), id);
  const more = isTruncated ? el("p", { class: "help" }, `Only the first ${nodes.length} are shown.`) : null;
  return el("div", {}, tree.element, more);
}

class LineageTree {
  #entries;
  #items;
  #collapsed = new Set();

  constructor(entries, currentId) {
    this.#entries = entries;
    this.#items = entries.map((entry) => this.#createItem(entry, entry.node.id === currentId));
    this.element = el("div", { class: "lineage", role: "tree", "aria-label": "Lineage" }, ...this.#items);
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    const current = entries.findIndex(({ node }) => node.id === currentId);
    this.#items[Math.max(0, current)].tabIndex = 0;
    requestAnimationFrame(() => {
      const item = this.#items[Math.max(0, current)];
      this.element.scrollTop = item.offsetTop - this.element.clientHeight / 2;
    });
  }

  #createItem({ node, relation, depth, position, siblings, isParent, also }, isCurrent) {
    const isThere = Boolean(node.createdAt);
    const name = isThere ? shorten(node.prompt, 90) : "An uploaded clip, or a take that was deleted";
    const words = [
      RELATIONS[relation],
      ...also.map((parent) => `and ${RELATIONS[parent.relation] ?? "made from"} another`),
    ]
      .filter(Boolean)
      .join(", ");
    const state = ["GENERATION_STATE_COMPLETED", "GENERATION_STATE_UNSPECIFIED"].includes(node.state)
      ? null
      : el("span", { class: "badge" }, stateName(node.state));
    const twist = el(
      "span",
      { class: "twist", onclick: (event) => this.#twist(event, node.id) },
      isParent ? icon("twist", { size: 12 }) : null,
    );
    return el(
      "div",
      {
        class: "lineage-item",
        role: "treeitem",
        tabindex: "-1",
        "aria-level": String(depth + 1),
        "aria-posinset": String(position),
        "aria-setsize": String(siblings),
        "aria-expanded": isParent ? "true" : null,
        "aria-current": isCurrent ? "true" : null,
        "aria-selected": String(isCurrent),
        "aria-disabled": isThere ? null : "true",
        dataset: { id: node.id },
        style: { "--depth": String(Math.min(depth, MAX_INDENT)) },
        onclick: () => isThere && emit("select", { id: node.id }),
      },
      twist,
      words ? el("span", { class: "relation" }, depth ? words : "") : null,
      el("span", { class: "name", dir: "auto" }, name),
      state,
      isThere ? el("span", { class: "when" }, formatAgo(node.createdAt)) : null,
    );
  }

  #twist(event, id) {
    event.stopPropagation();
    this.#setCollapsed(id, !this.#collapsed.has(id));
  }

  #setCollapsed(id, isCollapsed) {
    if (isCollapsed) this.#collapsed.add(id);
    else this.#collapsed.delete(id);
    let hiddenBelow = Infinity;
    for (const [index, { node, depth, isParent }] of this.#entries.entries()) {
      if (depth <= hiddenBelow) hiddenBelow = Infinity;
      const item = this.#items[index];
      item.hidden = depth > hiddenBelow;
      const isFolded = this.#collapsed.has(node.id);
      if (isParent) item.setAttribute("aria-expanded", String(!isFolded));
      if (isFolded && hiddenBelow === Infinity) hiddenBelow = depth;
    }
  }

  #onKey(event) {
    const item = event.target.closest("[role=treeitem]");
    const index = this.#items.indexOf(item);
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const { node, depth, isParent } = this.#entries[index];
    const shown = this.#items.filter((one) => !one.hidden);
    const at = shown.indexOf(item);
    const isOpen = isParent && !this.#collapsed.has(node.id);
    if (event.key === "ArrowDown") this.#focus(shown[at + 1]);
    else if (event.key === "ArrowUp") this.#focus(shown[at - 1]);
    else if (event.key === "Home") this.#focus(shown[0]);
    else if (event.key === "End") this.#focus(shown.at(-1));
    else if (event.key === "ArrowRight" && isParent && !isOpen) this.#setCollapsed(node.id, false);
    else if (event.key === "ArrowRight" && isOpen) this.#focus(shown[at + 1]);
    else if (event.key === "ArrowLeft" && isOpen) this.#setCollapsed(node.id, true);
    else if (event.key === "ArrowLeft")
      this.#focus(this.#items[this.#entries.findLastIndex((one, i) => i < index && one.depth < depth)]);
    else if (event.key === "Enter" || event.key === " ") item.click();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #focus(item) {
    if (!item) return;
    for (const one of this.#items) one.tabIndex = one === item ? 0 : -1;
    item.focus();
  }
}
