// A take's rating, 1 to 5 stars or none.

import { call } from "../api.js";
import { element as el } from "../dom.js";
import { icon } from "../icons.js";
import { getTake, putTake } from "../state.js";
import { toastError } from "../toasts.js";

let fields = 0;

/** How many stars there are. */
export const MAX_RATING = 5;

/** Sets the rating of a take, 0 for none. What is shown changes at once, and back if the server refuses. */
export async function rate(id, rating) {
  const before = getTake(id);
  if (!before || before.rating === rating) return;
  putTake({ ...before, rating });
  try {
    const { generation } = await call("RateGeneration", { id, rating });
    putTake(generation);
  } catch (error) {
    putTake({ ...(getTake(id) ?? before), rating: before.rating });
    toastError(error, "The rating was not saved");
  }
}

/**
 * Returns stars for a mouse, within a row that has its own name and keys: the same star again takes the rating away.
 * `update(rating)` shows a rating.
 */
export function createStars(onRate) {
  let current = 0;
  const stars = Array.from({ length: MAX_RATING }, (_, index) => {
    const value = index + 1;
    const attributes = {
      type: "button",
      class: "star",
      tabindex: "-1",
      "aria-label": `Rate ${value} of ${MAX_RATING}`,
    };
    const star = el("button", { ...attributes, onclick: () => onRate(value === current ? 0 : value) }, icon("star"));
    return star;
  });
  const element = el("span", { class: "stars", role: "group", "aria-label": "Rating" }, ...stars);
  const update = (rating) => {
    current = rating ?? 0;
    element.classList.toggle("rated", current > 0);
    for (const [index, star] of stars.entries()) {
      star.classList.toggle("on", index < current);
      star.setAttribute("aria-pressed", String(index + 1 === current));
    }
  };
  update(0);
  return { element, update };
}

/** Returns stars as a group of radio buttons, for the keyboard and screen readers too. */
export function createStarField(onRate) {
  const name = `rating-${(fields += 1)}`;
  const inputs = [];
  const element = el("fieldset", { class: "stars large" }, el("legend", { class: "visually-hidden" }, "Rating"));
  for (let value = 0; value <= MAX_RATING; value += 1) {
    const input = el("input", { type: "radio", class: "visually-hidden", name, value: String(value) });
    input.addEventListener("change", () => onRate(value));
    inputs.push(input);
    const text = value ? `${value} of ${MAX_RATING} stars` : "No rating";
    const label = el(
      "label",
      { class: value ? "star" : "visually-hidden" },
      input,
      el("span", { class: "visually-hidden" }, text),
    );
    if (value) label.append(icon("star"));
    label.addEventListener("click", (event) => {
      if (input.checked && value && event.target !== input) {
        event.preventDefault();
        onRate(0);
      }
    });
    element.append(label);
  }
  const update = (rating) => {
    for (const [value, input] of inputs.entries()) {
      input.checked = value === (rating ?? 0);
      input.parentElement.classList.toggle("on", value > 0 && value <= rating);
    }
  };
  update(0);
  return { element, update };
}
