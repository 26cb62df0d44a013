// Asks for a token where the server requires one, and signs out. The token is kept in a cookie that no script can read.

import { getJson, postJson } from "./api.js";
import { openDialog } from "./dialogs.js";
import { byId, element as el } from "./dom.js";

let isOpen = false;
let button;

/** Listens for calls that were refused for want of a token. */
export async function startSignIn() {
  button = el("button", { type: "button", class: "button small", hidden: true });
  byId("top-actions").append(button);
  document.addEventListener("sign-in-needed", () => {
    if (button.dataset.does === "sign-in") return; // The dialog was closed: it opens again by the button alone.
    offerSignIn();
    ask();
  });
  try {
    const studio = await getJson("/api/studio");
    if (!studio.signed_in) offerSignIn();
    else if (studio.has_token) offer("sign-out", "Sign out", signOut);
    if (!studio.signed_in) ask();
  } catch {
    // The head of the page says that the server does not answer.
  }
}

function offerSignIn() {
  offer("sign-in", "Sign in", ask);
}

function offer(does, label, run) {
  button.dataset.does = does;
  button.textContent = label;
  button.onclick = run;
  button.hidden = false;
}

async function signOut() {
  await postJson("/api/sign-out", {});
  location.reload();
}

async function ask() {
  if (isOpen) return;
  isOpen = true;
  const problem = el("p", { class: "field-error", role: "alert", id: "token-problem" });
  const token = el("input", {
    type: "password",
    name: "token",
    id: "token",
    autocomplete: "current-password",
    required: true,
    autofocus: true,
    "aria-describedby": "token-help token-problem",
  });
  const help = el("p", { class: "help", id: "token-help" }, "An administrator makes one by: ", el("code", {}, "dgx-music token create NAME"));
  const onsubmit = (event) => {
    event.preventDefault();
    signIn();
  };
  const form = el("form", { class: "field", onsubmit }, el("label", { for: "token" }, "Token"), token, help, problem);
  const signIn = async () => {
    problem.textContent = "";
    try {
      await postJson("/api/sign-in", { token: token.value });
    } catch (error) {
      problem.textContent = error.message;
      token.setAttribute("aria-invalid", "true");
      token.focus();
      return false;
    }
    location.reload(); // All parts begin anew, with what this token may see.
    return true;
  };
  await openDialog({ title: "Sign in to the Studio", body: [form], actions: [{ label: "Sign in", primary: true, run: signIn }] });
  isOpen = false;
}
