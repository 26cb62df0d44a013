/** Starts the form in its region. */
import { byId } from "../dom.js";
import { ComposeForm } from "./form.js";

export function start() {
  return new ComposeForm(byId("compose"));
}
