// The finished file and what can be made of it: other formats, notes, stems, and sessions for a DAW.

import { ApiError, fileUrl, request } from "../api.js";
import { element as el } from "../dom.js";
import { fileName } from "../formats.js";
import { icon } from "../icons.js";
import { toast, toastError } from "../toasts.js";
import { saveSession } from "./session_dialog.js";

/** [format in the query, what it is called, extension] */
const FORMATS = [
  ["wav", "WAV, 24 bits", "wav"],
  ["wav-16", "WAV, 16 bits", "wav"],
  ["wav-float", "WAV, 32-bit float", "wav"],
  ["flac", "FLAC", "flac"],
  ["aiff", "AIFF", "aiff"],
  ["caf", "CAF (Apple)", "caf"],
  ["mp3", "MP3", "mp3"],
  ["ogg", "Ogg Vorbis", "ogg"],
  ["opus", "Opus", "opus"],
  ["m4a", "M4A (AAC)", "m4a"],
];
const NOTICES_MS = 20000;
const MEDIA_TYPES = {
  wav: "audio/wav",
  flac: "audio/flac",
  aiff: "audio/aiff",
  caf: "audio/x-caf",
  mp3: "audio/mpeg",
  ogg: "audio/ogg",
  opus: "audio/ogg",
  m4a: "audio/mp4",
  w64: "audio/x-w64",
};

function extensionOf(generation) {
  return /\.([a-z0-9]+)$/.exec(generation.filePath)?.[1] ?? "wav";
}

/**
 * Saves what is at a path under the name that the server gives it. Unlike a link, it shows why something can't be made,
 * such as an encoder that is not installed.
 */
export async function save(path, { name, what }) {
  const dismiss = toast(`Preparing ${what}…`, { milliseconds: 3600000, isBusy: true });
  try {
    const response = await request(path);
    const url = URL.createObjectURL(await response.blob());
    const link = el("a", { href: url, download: nameIn(response) || name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    dismiss();
    const notices = response.headers.get("dgx-music-notices");
    if (notices) toast(decodeURIComponent(notices), { milliseconds: NOTICES_MS });
  } catch (error) {
    dismiss();
    toastError(error instanceof ApiError ? error : new Error("the connection was lost; try again"), `No ${what}`);
  }
}

function nameIn(response) {
  const header = response.headers.get("content-disposition") ?? "";
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(header)?.[1];
  try {
    return encoded ? decodeURIComponent(encoded) : (/filename="([^"]+)"/.exec(header)?.[1] ?? "");
  } catch {
    return "";
  }
}

/**
 * Returns a link to the finished file that can also be dragged out of the page: into a folder or a DAW in Chromium and
 * its relatives, as a link elsewhere.
 */
export function createFileLink(generation) {
  const extension = extensionOf(generation);
  const href = fileUrl(generation.id, { download: true });
  const name = fileName(generation, extension);
  const link = el(
    "a",
    {
      class: "button",
      href,
      download: name,
      draggable: "true",
      title: "Click to save, or drag it into a folder or a DAW",
    },
    icon("download"),
    extension.toUpperCase(),
  );
  link.addEventListener("dragstart", ({ dataTransfer }) => {
    const address = new URL(href, location.href).href;
    const type = MEDIA_TYPES[extension] ?? "application/octet-stream";
    dataTransfer.setData("DownloadURL", `${type}:${name}:${address}`);
    dataTransfer.setData("text/uri-list", address);
    dataTransfer.effectAllowed = "copy";
  });
  return link;
}

/** The items of a menu with everything that can be saved of one take. */
export function downloadItems(generation) {
  const { id } = generation;
  const inFormat = ([format, label, extension]) => ({
    label,
    run: () => save(fileUrl(id, { format, download: true }), { name: fileName(generation, extension), what: label }),
  });
  const path = `/api/generations/${encodeURIComponent(id)}`;
  return [
    { label: "The file as it is", icon: icon("download"), href: fileUrl(id, { download: true }) },
    "-",
    ...FORMATS.map(inFormat),
    "-",
    {
      label: "Notes (MIDI)",
      run: () => save(`${path}/midi`, { name: fileName(generation, "mid"), what: "MIDI file" }),
    },
    { label: "Stems (WAV)", run: () => save(`${path}/stems`, { name: fileName(generation, "zip"), what: "stems" }) },
    "-",
    { label: "DAW session…", run: () => saveSession([generation]) },
  ];
}
