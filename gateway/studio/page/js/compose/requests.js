/** Builds CreateGenerationRequests, in protobuf's JSON, from what the form has. */

/** Kinds of edits, as the form calls them and as the contract does. */
export const EDIT_KINDS = {
  repaint: "EDIT_KIND_REPAINT",
  "extend-left": "EDIT_KIND_EXTEND_LEFT",
  "extend-right": "EDIT_KIND_EXTEND_RIGHT",
};
const MAX_SEED = 2n ** 63n - 1n;

/**
 * Returns a request for each take, which differ in their seeds. A field that was left empty is not in it.
 *
 * @param {Record<string, any>} values of the form's fields by their paths, e.g. "sampling.temperature"; those of rows and
 *   sources are messages.
 * @param {{kind: string, id: string, start?: number, end?: number, added?: number, seconds?: number, original?: object} | null}
 *   edit of earlier music; `original` is the generation with this id, if it is one.
 */
export function buildRequests(values, edit) {
  const request = {};
  for (const [path, value] of Object.entries(values)) {
    if (value === undefined || path === "count" || path === "seed") continue;
    const names = path.split(".").map(camelCase);
    const last = names.pop();
    let message = request;
    for (const name of names) message = message[name] ??= {};
    message[last] = value;
  }
  if (request.conditioning?.promptWeight !== undefined && !request.conditioning.furtherPrompts) {
    delete request.conditioning.promptWeight;
  }
  if (edit) addEdit(request, edit);
  if (request.edit || request.loop) delete request.durationSeconds;
  const seed = values.seed === undefined ? undefined : BigInt(values.seed);
  return Array.from({ length: values.count ?? 1 }, (_, index) => ({
    ...request,
    requestId: newId(),
    ...(seed !== undefined && { seed: String(seed + BigInt(index)) }),
  }));
}

function addEdit(request, { kind, id, start, end, added, seconds, original }) {
  if (kind === "variation") {
    request.variationOf = id;
    for (const name of ["continuation", "edit"]) if (original?.[name]) request[name] = original[name];
  } else if (kind === "continue") request.continuation = { sourceId: id, ...(seconds && { seconds }) };
  else if (kind === "repaint") request.edit = { sourceId: id, kind: EDIT_KINDS[kind], startSeconds: start, endSeconds: end };
  else request.edit = { sourceId: id, kind: EDIT_KINDS[kind], addedSeconds: added };
}

/** Reads a seed. Throws Error if it is none. */
export function parseSeed(text) {
  const digits = text.trim();
  if (!/^\d+$/.test(digits) || BigInt(digits) > MAX_SEED) throw new Error(`This must be a whole number from 0 to ${MAX_SEED}.`);
  return digits;
}

/** The values of the form that make a generation again, by the paths of their fields. */
export function valuesOf(generation) {
  const { sampling = {}, conditioning = {}, output = {}, loop } = generation;
  const values = { prompt: generation.prompt, model_name: generation.modelName, seed: generation.seed };
  if (loop) Object.assign(values, { "loop.bars": loop.bars, "loop.beats_per_bar": loop.beatsPerBar || "", "loop.bpm": loop.bpm });
  else values.duration_seconds = generation.durationSeconds;
  for (const name of ["temperature", "topK", "topP", "guidanceScale"]) values[`sampling.${snakeCase(name)}`] = sampling[name];
  for (const name of ["negativePrompt", "promptWeight", "furtherPrompts", "sections", "adapters", "lyrics", "steps"]) {
    values[`conditioning.${snakeCase(name)}`] = conditioning[name] || undefined;
  }
  if (output.format && output.format !== "FILE_FORMAT_UNSPECIFIED") values["output.format"] = output.format;
  if (output.profile) values["output.profile"] = output.profile;
  values["output.tag_prompt"] = output.tagPrompt;
  values.priority = generation.priority || undefined;
  return values;
}

function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // Over plain HTTP from elsewhere there is only this.
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function camelCase(name) {
  return name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
}

function snakeCase(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
