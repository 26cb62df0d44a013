// Earlier comparisons, and what they say together.

import { call } from "../../api.js";
import { element, formatDate } from "../../dom.js";
import { emit, getTake, on } from "../../state.js";
import { summarize } from "./result_summary.js";
import { nameParts } from "../take_names.js";

const loaded = new Map(); // Not in the page's state: its list need not learn of all these.
const PAGE = 50;
const SUMMARIZED = 200;
const MAX_KINDS = 12;

/** A list that opens, and is loaded then. */
export class Results {
  constructor() {
    this.body = element("div", { class: "compare-results" });
    const listen = { ontoggle: () => this.node.open && this.load() };
    this.node = element("details", { class: "more", ...listen }, element("summary", {}, "Earlier results"), this.body);
    this.isStale = true;
    on("deleted", () => this.markStale());
  }

  /** Loads them again if they are shown, or else when they are shown next. */
  markStale() {
    this.isStale = true;
    if (this.node.open) this.load();
  }

  async load() {
    if (!this.isStale) return;
    this.isStale = false;
    this.body.replaceChildren(element("p", { role: "status" }, "Loading…"));
    try {
      const { comparisons, isWhole } = await listComparisons();
      await loadTakes(new Set(comparisons.flatMap(({ generationIds }) => generationIds)));
      this.#show(comparisons, isWhole);
    } catch (error) {
      this.isStale = true;
      this.body.replaceChildren(element("p", { role: "alert" }, error.message));
    }
  }

  #show(comparisons, isWhole) {
    if (!comparisons.length) {
      this.body.replaceChildren(element("p", {}, "No ranking has been saved yet."));
      return;
    }
    const known = (id, read) => (find(id) ? read(find(id)) : null);
    const blind = comparisons.filter((one) => one.blind);
    this.body.replaceChildren(
      element("p", { class: "help" }, `${comparisons.length}${isWhole ? "" : " newest"} rankings, ${blind.length} of them blind.`),
      this.#summary("By model", comparisons, (id) => known(id, (take) => take.modelName)),
      this.#summary("By seed", comparisons, (id) => known(id, (take) => `seed ${take.seed}`)),
      element("ol", { class: "compare-history" }, ...comparisons.slice(0, PAGE).map((one) => this.#item(one))),
    );
  }

  #summary(title, comparisons, keyOf) {
    const kinds = summarize(comparisons, keyOf).slice(0, MAX_KINDS);
    if (!kinds.length) return null;
    const row = ({ key, wins, compared, expected, preferred, pairs }) =>
      element(
        "tr",
        {},
        element("th", { scope: "row", dir: "auto" }, key),
        element("td", {}, `${wins} of ${compared}`),
        element("td", {}, expected.toFixed(1)),
        element("td", {}, `${Math.round((100 * preferred) / pairs)} % of ${pairs}`),
      );
    const heads = [title.replace("By ", "").replace(/^./, (first) => first.toUpperCase()), "Won", "By chance", "Preferred"];
    return element(
      "div",
      { class: "compare-scroll" },
      element(
        "table",
        { class: "compare-values" },
        element("caption", {}, title),
        element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)))),
        element("tbody", {}, ...kinds.map(row)),
      ),
    );
  }

  #item({ createTime, generationIds, blind }) {
    const takes = generationIds.map((id) => {
      const take = find(id);
      const name = take ? nameParts(take) : [id];
      const select = { type: "button", class: "compare-link", onclick: () => emit("select", { id, show: true }) };
      return element("li", {}, element("button", select, ...name));
    });
    const again = {
      type: "button",
      class: "button small",
      onclick: () => emit("compare-open", { ids: generationIds }),
    };
    return element(
      "li",
      {},
      element("p", {}, formatDate(createTime), blind && element("span", { class: "badge" }, "blind"), element("button", again, "Compare again")),
      element("ol", {}, ...takes),
    );
  }
}

async function listComparisons() {
  const comparisons = [];
  let pageToken = "";
  do {
    const page = await call("ListComparisons", { pageSize: SUMMARIZED, pageToken });
    comparisons.push(...page.comparisons);
    pageToken = page.nextPageToken;
  } while (pageToken && comparisons.length < SUMMARIZED);
  return { comparisons, isWhole: !pageToken };
}

function find(id) {
  return getTake(id) ?? loaded.get(id);
}

async function loadTakes(ids) {
  for (const id of ids) {
    if (find(id)) continue;
    try {
      loaded.set(id, (await call("GetGeneration", { id })).generation);
    } catch (error) {
      if (error.code !== "NOT_FOUND") throw error; // It has just been deleted.
    }
  }
}
