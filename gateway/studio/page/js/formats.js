// Values of the contracts in the words and figures that people read.

const STATES = {
  GENERATION_STATE_PENDING: "Queued",
  GENERATION_STATE_PROCESSING: "Generating",
  GENERATION_STATE_COMPLETED: "Finished",
  GENERATION_STATE_FAILED: "Failed",
  GENERATION_STATE_CANCELLED: "Cancelled",
};
const STAGES = {
  GENERATION_STAGE_QUEUED: "Waiting for the engine",
  GENERATION_STAGE_LOADING_MODEL: "Loading the model",
  GENERATION_STAGE_ENCODING_PROMPT: "Reading the prompt",
  GENERATION_STAGE_GENERATING: "Generating",
  GENERATION_STAGE_EXPORTING: "Writing the file",
};
const SEMITONES = { C: 0, D: 2, E: 4, F: 5, G: 7, A: 9, B: 11 };
const AGO = [
  [60, 1, "second"],
  [3600, 60, "minute"],
  [86400, 3600, "hour"],
  [7 * 86400, 86400, "day"],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "narrow" });
const dateAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const dateOnly = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const MAX_SLUG = 48;

/** Seconds as "0:08", "12:05" or "1:00:00". */
export function formatTime(seconds) {
  const whole = Math.max(0, Math.round(Number(seconds) || 0));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** A length for a screen reader: "8 seconds", "2 minutes 5 seconds". */
export function speakTime(seconds) {
  const whole = Math.max(0, Math.round(Number(seconds) || 0));
  const parts = [
    [Math.floor(whole / 60), "minute"],
    [whole % 60, "second"],
  ].filter(([value]) => value);
  return parts.map(([value, unit]) => `${value} ${unit}${value === 1 ? "" : "s"}`).join(" ") || "0 seconds";
}

/** A time of the contracts as "5 min. ago"; as a date if it is more than a week ago. */
export function formatAgo(time, now = Date.now()) {
  const seconds = (now - Date.parse(time)) / 1000;
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 10) return "now";
  const unit = AGO.find(([below]) => seconds < below);
  return unit ? relative.format(-Math.floor(seconds / unit[1]), unit[2]) : dateOnly.format(new Date(time));
}

/** A time of the contracts as date and time of day. */
export function formatDate(time) {
  return time ? dateAndTime.format(new Date(time)) : "";
}

/** Bytes as "1.5 MB". */
export function formatBytes(bytes) {
  let value = Number(bytes) || 0;
  for (const unit of ["bytes", "kB", "MB"]) {
    if (value < 1000) return `${unit === "bytes" ? value : value.toPrecision(3)} ${unit}`;
    value /= 1000;
  }
  return `${value.toPrecision(3)} GB`;
}

/** A level with one decimal and a true minus sign, such as "−16.0 LUFS". */
export function formatDb(value, unit = "dB") {
  return typeof value === "number" && Number.isFinite(value) ? `${value.toFixed(1).replace("-", "−")} ${unit}` : "";
}

/** Beats per minute, without decimals where there are none: "84 BPM". */
export function formatTempo(bpm) {
  return bpm > 0 ? `${Number(bpm.toFixed(1))} BPM` : "";
}

/** The name of a GenerationState. */
export function stateName(state) {
  return STATES[state] ?? "Unknown";
}

/** What a running take is doing. */
export function stageName(generation) {
  return STAGES[generation.stage] ?? stateName(generation.state);
}

function textOf(value) {
  return typeof value === "string" ? value : "";
}

/** The tempo in beats per minute: as it was made, or else as it was measured; 0 if neither is known. */
export function tempoOf({ metadata }) {
  const bpm = metadata?.bpm ?? metadata?.measured_bpm;
  return typeof bpm === "number" && Number.isFinite(bpm) ? bpm : 0;
}

/** The key, such as "A minor": as it was made, or else as it was measured; empty if neither is known. */
export function keyOf({ metadata }) {
  return textOf(metadata?.key) || textOf(metadata?.measured_key);
}

/** What two spellings of a key have in common, such as "D# minor" and "Eb minor"; empty if it is no key. */
export function soundOfKey(key) {
  const [, letter, sign, mode] = /^([A-G])([#♯b♭]?) (major|minor)$/.exec(key) ?? [];
  if (!letter) return "";
  const semitone = SEMITONES[letter] + (sign ? ("#♯".includes(sign) ? 1 : 11) : 0);
  return `${semitone % 12} ${mode}`;
}

/** A key with its signs: "E♭ major". */
export function formatKey(key) {
  return key.replace(/^([A-G])(#|b)(?= )/, (_, note, sign) => note + (sign === "#" ? "♯" : "♭"));
}

/** The length of the file in seconds, or else the one that was asked for. */
export function lengthOf(generation) {
  const { frames, file_sample_rate_hz: rate } = generation.metadata ?? {};
  const heard = typeof frames === "number" && typeof rate === "number" && rate > 0 ? frames / rate : 0;
  return heard || generation.durationSeconds || 0;
}

/** A prompt that is short enough for a label; it is never cut within a character. */
export function shorten(text, characters = 120) {
  const line = String(text)
    .slice(0, characters * 8)
    .replace(/\s+/gu, " ")
    .trim();
  if (line.length <= characters) return line;
  const segments = new Intl.Segmenter().segment(line);
  let kept = "";
  let count = 0;
  for (const { segment } of segments) {
    if ((count += 1) > characters) return `${kept.trimEnd()}…`;
    kept += segment;
  }
  return kept;
}

/** A take in one sentence, for screen readers. */
export function describeTake(generation) {
  const facts = [
    shorten(generation.prompt, 100),
    stateName(generation.state),
    speakTime(lengthOf(generation)),
    formatTempo(tempoOf(generation)),
    keyOf(generation),
    generation.modelName,
    generation.rating ? `rated ${generation.rating} of 5` : "not rated",
    formatAgo(generation.createdAt),
  ];
  return facts.filter(Boolean).join(", ");
}

/** A file name that says what is in it and that every system takes: "lo-fi-hip-hop-52f6ee6d.wav". */
export function fileName(generation, extension) {
  const words = generation.prompt
    .normalize("NFKD")
    .replace(/\p{Mark}/gu, "")
    .toLowerCase()
    .match(/[a-z0-9]+/g);
  let slug = "";
  for (const word of words ?? []) {
    if (slug.length + word.length >= MAX_SLUG) break;
    slug += `${word}-`;
  }
  return `${slug || "take-"}${generation.id.slice(0, 8)}.${extension}`;
}

/** Orders times of the contracts, whose fractions have 0 to 9 digits: a key that compares as text. */
export function timeKey(time) {
  const [seconds, fraction = ""] = String(time ?? "")
    .replace("Z", "")
    .split(".");
  return `${seconds}.${fraction.padEnd(9, "0")}`;
}
