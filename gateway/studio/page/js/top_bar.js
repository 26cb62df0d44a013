// The head of the page: what the server is doing, the theme, the keys.

import { call, getJson } from "./api.js";
import { byId, element as el } from "./dom.js";
import { icon } from "./icons.js";
import { showShortcuts } from "./shortcuts.js";
import { on } from "./state.js";
import { nextTheme, theme, themeName } from "./theme.js";

const LOOK_MS = 15000;
const LOOK_AGAIN_MS = 3000;
const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };

let version = "";
let timer = 0;

function tell(state, text) {
  const element = byId("server-state");
  element.dataset.state = state;
  element.title = text;
  if (element.textContent !== text) element.textContent = text;
}

/** Says whether the server answers, and what its queue holds. */
async function look() {
  clearTimeout(timer);
  let pause = LOOK_MS;
  try {
    version ||= (await getJson("/api/studio")).version;
    const { pendingGenerations, processingGenerations } = await call("GetStatistics", { days: 1 });
    const [waiting, running] = [Number(pendingGenerations), Number(processingGenerations)];
    if (running || waiting)
      tell("busy", [running && `${running} generating`, waiting && `${waiting} queued`].filter(Boolean).join(", "));
    else tell("ready", version ? `Ready · ${version}` : "Ready");
  } catch (error) {
    if (error.code === "UNAUTHENTICATED") tell("", "Not signed in");
    else {
      tell("lost", error.code === "UNAVAILABLE" ? "The server does not answer" : error.message);
      pause = LOOK_AGAIN_MS;
    }
  }
  timer = setTimeout(look, document.hidden ? LOOK_MS : pause);
}

function createThemeButton() {
  const button = el("button", { type: "button", class: "icon-button", onclick: nextTheme });
  const show = () => {
    const name = `Theme: ${themeName()}`;
    button.setAttribute("aria-label", name);
    button.title = name;
    button.replaceChildren(icon(THEME_ICONS[theme()]));
  };
  on("theme", show);
  show();
  return button;
}

/** Fills the head of the page. */
export function startTop() {
  const help = {
    type: "button",
    class: "icon-button",
    "aria-label": "Keys",
    title: "Keys (?)",
    onclick: () => showShortcuts(),
  };
  byId("top-actions").append(el("button", help, icon("help")), createThemeButton());
  let soon = 0;
  on("changed", () => {
    clearTimeout(soon);
    soon = setTimeout(look, 500);
  });
  look();
}
