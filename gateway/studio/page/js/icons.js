// The icons of the page: strokes on a grid of 16 by 16.

const NAMESPACE = "http://www.w3.org/2000/svg";

const PATHS = {
  auto: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
  branch:
    "M4.5 5.5v5M4.5 8h3.2a3.3 3.3 0 0 0 3.3-2.6M4.5 2.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3zM4.5 10.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3zM11.5 2.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3z",
  check: "M3 8.5l3.2 3.2L13 4.8",
  close: "M4 4l8 8M12 4l-8 8",
  compare: "M2.5 4v8M5.5 6v4M8 1.8v12.4M10.5 6v4M13.5 3v10",
  compose: "M8 3.2v9.6M3.2 8h9.6",
  copy: "M5.5 5.5h7.7v7.7H5.5zM3 10.5v-7.7h7.5",
  download: "M8 2.5v7.6M4.7 7.2L8 10.5l3.3-3.3M2.8 13.5h10.4",
  eye: "M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8zM8 6.2a1.8 1.8 0 1 1 0 3.6 1.8 1.8 0 0 1 0-3.6z",
  filter: "M2.5 4.5h11M4.5 8h7M6.5 11.5h3",
  grip: "M6 3.5v.01M10 3.5v.01M6 8v.01M10 8v.01M6 12.5v.01M10 12.5v.01",
  help: "M5.8 6.1a2.2 2.2 0 1 1 3.3 1.9c-.8.5-1.1.9-1.1 1.7M8 12v.01",
  history: "M2.5 4.5h11M2.5 8h11M2.5 11.5h7",
  link: "M6.8 9.2l2.9-2.9M7.3 4.6l1.2-1.2a2.9 2.9 0 0 1 4.1 4.1l-1.2 1.2M8.7 11.4l-1.2 1.2a2.9 2.9 0 0 1-4.1-4.1l1.2-1.2",
  loop: "M3 7.5a3.2 3.2 0 0 1 3.2-3h6.3M10.5 2.3l2.2 2.2-2.2 2.2M13 8.5a3.2 3.2 0 0 1-3.2 3H3.5M5.5 13.7l-2.2-2.2 2.2-2.2",
  minus: "M3.2 8h9.6",
  moon: "M13 9.6A5.4 5.4 0 1 1 6.4 3a4.3 4.3 0 0 0 6.6 6.6z",
  more: "M3.5 8v.01M8 8v.01M12.5 8v.01",
  pause: "M5.2 3.2v9.6M10.8 3.2v9.6",
  play: "M4.8 3l7.8 5-7.8 5z",
  plus: "M8 3.2v9.6M3.2 8h9.6",
  search: "M7 2.8a4.2 4.2 0 1 1 0 8.4 4.2 4.2 0 0 1 0-8.4zM10.2 10.2l3.2 3.2",
  star: "M8 1.9l1.9 3.9 4.2.6-3.05 3 .72 4.2L8 11.6l-3.77 2 .72-4.2-3.05-3 4.2-.6z",
  stop: "M4 4h8v8H4z",
  sun: "M8 5.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6zM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9",
  trash: "M2.8 4.5h10.4M6.2 4.3V2.7h3.6v1.6M4.3 4.7l.6 8.6h6.2l.6-8.6M6.7 7v4M9.3 7v4",
  twist: "M6 3.8l4.2 4.2L6 12.2",
  undo: "M5.8 3L2.8 6l3 3M3.2 6h6.3a3.7 3.7 0 0 1 0 7.4H6.5",
  volume: "M2.5 6.2v3.6h2.3L8 12.6V3.4L4.8 6.2zM10.5 6a2.8 2.8 0 0 1 0 4M12.3 4.2a5.3 5.3 0 0 1 0 7.6",
  wave: "M2 8h1.5M5 5v6M8 2.5v11M11 5v6M12.5 8H14",
};
const FILLED = new Set(["play"]);

/** Returns an icon that assistive technology skips; its button has the name. */
export function icon(name, { size = 16 } = {}) {
  const svg = document.createElementNS(NAMESPACE, "svg");
  const attributes = {
    viewBox: "0 0 16 16",
    width: size,
    height: size,
    fill: FILLED.has(name) ? "currentColor" : "none",
    stroke: "currentColor",
    "stroke-width": ["more", "grip"].includes(name) ? 2.2 : 1.5,
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
    "aria-hidden": "true",
    focusable: "false",
  };
  for (const [key, value] of Object.entries(attributes)) svg.setAttribute(key, value);
  const path = document.createElementNS(NAMESPACE, "path");
  path.setAttribute("d", PATHS[name] ?? "");
  svg.append(path);
  return svg;
}
