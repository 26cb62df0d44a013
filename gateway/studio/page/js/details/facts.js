// What is known of a take, in groups of names and values.

import {
  formatBytes,
  formatDate,
  formatDb,
  formatKey,
  formatTempo,
  formatTime,
  keyOf,
  lengthOf,
  tempoOf,
} from "../formats.js";

const DECIBELS = [
  ["integrated_lufs", "Loudness", "LUFS"],
  ["true_peak_dbtp", "True peak", "dBTP"],
  ["loudness_range_lu", "Range", "LU"],
  ["peak_to_loudness_lu", "Peak to loudness", "LU"],
  ["rms_dbfs", "RMS", "dBFS"],
  ["gain_db", "Gain applied", "dB"],
  ["largest_reduction_db", "Limiter, at most", "dB"],
  ["shortfall_lu", "Below the target", "LU"],
];
const SAMPLING = [
  ["guidanceScale", "Guidance"],
  ["temperature", "Temperature"],
  ["topK", "Top-k"],
  ["topP", "Top-p"],
];
const EDITS = {
  EDIT_KIND_EXTEND_LEFT: "extended to the left",
  EDIT_KIND_EXTEND_RIGHT: "extended to the right",
  EDIT_KIND_REPAINT: "repainted",
};

/** What the groups show; everything else in the metadata is among "all properties". */
function percent(value) {
  return typeof value === "number" ? `${Math.round(value * 100)} %` : "";
}

function text(value) {
  return typeof value === "string" || typeof value === "number" ? String(value) : "";
}

function number(value, digits = 2) {
  return typeof value === "number" && Number.isFinite(value) ? String(Number(value.toFixed(digits))) : "";
}

function measured(value, confidence, made) {
  if (!value || value === made) return "";
  return `measured ${value}${confidence ? `, ${confidence} sure` : ""}`;
}

/**
 * Returns the facts as [{title, facts: [{name, value, note?, copy?}]}], without those that have no value. `copy` is what
 * a button beside the value copies.
 */
export function factGroups(generation) {
  const m = generation.metadata ?? {};
  const tempo = formatTempo(tempoOf(generation));
  const key = keyOf(generation);
  const hasTempo = typeof m.bpm === "number";
  const groups = [
    {
      title: "Music",
      facts: [
        { name: "Length", value: formatTime(lengthOf(generation)), note: preciseLength(generation) },
        {
          name: "Tempo",
          value: tempo,
          note: hasTempo
            ? measured(formatTempo(m.measured_bpm ?? 0), percent(m.measured_bpm_confidence), tempo)
            : percentNote(m.measured_bpm_confidence),
        },
        {
          name: "Key",
          value: formatKey(key),
          note: m.key
            ? measured(text(m.measured_key), percent(m.measured_key_confidence), key)
            : percentNote(m.measured_key_confidence),
        },
        { name: "Metre", value: text(m.time_signature) },
        { name: "Genre", value: text(m.genre) },
        { name: "Instruments", value: text(m.instruments) },
        {
          name: "Loop",
          value: generation.loop?.bars ? `${generation.loop.bars} bars at ${formatTempo(generation.loop.bpm)}` : "",
        },
      ],
    },
    {
      title: "Loudness",
      facts: DECIBELS.map(([name, title, unit]) => ({
        name: title,
        value: m[name] === 0 && /gain|reduction|shortfall/.test(name) ? "" : formatDb(m[name], unit),
      })),
    },
    {
      title: "File",
      facts: [
        { name: "Format", value: text(m.file_format).replaceAll("_", " ") },
        { name: "Audio", value: audioOf(generation) },
        { name: "Size", value: Number(generation.fileSizeBytes) ? formatBytes(generation.fileSizeBytes) : "" },
        { name: "Marked", value: m.provenance ? "as AI-generated" : "", note: text(m.provenance) },
        { name: "SHA-256", value: text(m.file_sha256).slice(0, 12), copy: text(m.file_sha256) },
      ],
    },
    {
      title: "How it was made",
      facts: [
        { name: "Model", value: [generation.modelName, generation.modelVersion].filter(Boolean).join(" ") },
        { name: "Seed", value: text(generation.seed), copy: text(generation.seed) },
        ...SAMPLING.map(([name, title]) => ({ name: title, value: number(generation.sampling?.[name]) })),
        { name: "Steps", value: generation.conditioning?.steps ? text(generation.conditioning.steps) : "" },
        {
          name: "Adapters",
          value: (generation.conditioning?.adapters ?? [])
            .map(({ name, scale }) => (scale === undefined ? name : `${name} × ${number(scale)}`))
            .join(", "),
        },
        { name: "Edit", value: EDITS[generation.edit?.kind] ?? "" },
        {
          name: "Took",
          value: generation.generationTimeSeconds ? `${number(generation.generationTimeSeconds, 1)} s` : "",
          note: speedOf(generation),
        },
        { name: "Attempts", value: generation.attempt > 1 ? text(generation.attempt) : "" },
        { name: "Created", value: formatDate(generation.createdAt) },
        { name: "By", value: text(generation.client) },
        { name: "ID", value: generation.id.slice(0, 8), copy: generation.id },
      ],
    },
  ];
  for (const group of groups) group.facts = group.facts.filter(({ value }) => value);
  return groups.filter(({ facts }) => facts.length);
}

function preciseLength(generation) {
  const seconds = lengthOf(generation);
  return Number.isInteger(seconds) ? "" : `${number(seconds, 3)} s`;
}

function percentNote(confidence) {
  return typeof confidence === "number" ? `measured, ${percent(confidence)} sure` : "";
}

function audioOf({ sampleRateHz, channels, metadata = {} }) {
  const rate = Number(metadata.file_sample_rate_hz ?? sampleRateHz) / 1000;
  const count = Number(metadata.file_channels ?? channels);
  return rate ? `${number(rate, 3)} kHz ${count === 1 ? "mono" : count === 2 ? "stereo" : `${count} channels`}` : "";
}

function speedOf(generation) {
  const speed = lengthOf(generation) / generation.generationTimeSeconds;
  return Number.isFinite(speed) && speed > 0 ? `${speed >= 10 ? Math.round(speed) : speed.toFixed(1)}× real time` : "";
}

/** The prompts besides the main one, as [{title, text}]. */
export function furtherPrompts({ conditioning = {} }) {
  const weight = (value) => (value && value !== 1 ? ` (weight ${number(value)})` : "");
  return [
    ...(conditioning?.furtherPrompts ?? []).map(({ prompt, weight: value }) => ({
      title: `And${weight(value)}`,
      text: prompt,
    })),
    { title: "Not", text: conditioning?.negativePrompt ?? "" },
    { title: "Lyrics", text: conditioning?.lyrics ?? "" },
  ].filter(({ text: written }) => written);
}

/** The sections as [{from, to, text}], in seconds: those of the request, or else those that the model made. */
export function sectionsOf({ conditioning, metadata = {} }) {
  const asked = (conditioning?.sections ?? []).map(({ startSeconds = 0, endSeconds, prompt }) => ({
    from: startSeconds,
    to: endSeconds,
    text: prompt,
  }));
  if (asked.length) return asked;
  const made = Array.isArray(metadata.sections) ? metadata.sections : [];
  return made
    .filter((one) => one && typeof one === "object" && Number.isFinite(one.start_seconds))
    .map((one) => ({ from: one.start_seconds, to: Number(one.end_seconds), text: text(one.name) }));
}

/** All properties as [[name, value as text]], in the order of their names. */
export function allProperties({ metadata = {} }) {
  const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return Object.keys(metadata ?? {})
    .sort()
    .map((name) => [name, shown(metadata[name])]);
}
