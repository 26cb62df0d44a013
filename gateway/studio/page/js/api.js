// Calls of the Studio's server. Requests and answers are protobuf's JSON: camelCase, 64-bit integers as strings.

/** What the server says of a call that failed. `field` is the path of the request's field at fault, in snake_case. */
export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    this.name = "ApiError";
    this.status = status;
    this.code = error.code;
    this.reason = error.reason ?? "";
    this.field = error.field ?? null;
    this.metadata = error.metadata ?? {};
    this.retryAfterSeconds = error.retry_after_seconds ?? null;
  }

  /** Whether the same call may succeed later. */
  get isPassing() {
    return ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED"].includes(this.code);
  }
}

const READS = /^(Get|List)/;
const underWay = new Map(); // What is read → the promise of the answer's text.

/**
 * Calls a unary method of MusicService, e.g. `call("ListGenerations", {pageSize: 50})`. Throws ApiError. Parts of the
 * page that ask for the same at the same time share one call.
 */
export async function call(method, request = {}, { signal } = {}) {
  const path = `/api/${method}`;
  if (signal || !READS.test(method)) return postJson(path, request, signal);
  return JSON.parse(await shared(`${method} ${JSON.stringify(request)}`, () => postText(path, request)));
}

/** Posts JSON and returns the answer's JSON. Throws ApiError. */
export async function postJson(path, body, signal) {
  return JSON.parse(await postText(path, body, signal));
}

async function postText(path, body, signal) {
  const headers = { "content-type": "application/json" };
  return (await request(path, { method: "POST", headers, body: JSON.stringify(body), signal })).text();
}

/** Returns the JSON that is at the path. Throws ApiError. Those who ask at the same time share one request. */
export async function getJson(path, { signal } = {}) {
  if (signal) return (await request(path, { signal })).json();
  return JSON.parse(await shared(path, async () => (await request(path)).text()));
}

async function shared(key, ask) {
  if (!underWay.has(key)) underWay.set(key, ask().finally(() => underWay.delete(key)));
  return underWay.get(key);
}

/** Fetches, and returns the response if its status is one of success. Throws ApiError. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const message = "the Studio's server does not answer; it may have been stopped, or the network is away";
    throw new ApiError(0, { code: "UNAVAILABLE", message, reason: "CONNECTION_LOST" });
  }
  if (response.ok) return response;
  throw await toError(response);
}

async function toError(response) {
  let error = { code: "UNKNOWN", message: `the server answered ${response.status} ${response.statusText}` };
  try {
    error = (await response.json()).error ?? error;
  } catch {
    // Not the Studio's own answer, but for example that of a proxy.
  }
  const made = new ApiError(response.status, error);
  if (response.status === 401) askForSignIn(made);
  return made;
}

function askForSignIn(error) {
  document.dispatchEvent(new CustomEvent("sign-in-needed", { detail: error }));
}

/** Returns the address of a generation's samples as they are generated. `level` is "LIVE" or "FINAL". */
export function liveUrl(id, startFrame = 0, level = "") {
  const query = new URLSearchParams({ start_frame: String(startFrame), ...(level && { level }) });
  return `/api/generations/${encodeURIComponent(id)}/live?${query}`;
}

/** Returns the address of a generation's finished file, or of a render of it in another `format`, e.g. "mp3". */
export function fileUrl(id, { format = "", download = false } = {}) {
  const query = new URLSearchParams({ ...(format && { format }), ...(download && { download: "1" }) });
  return `/api/generations/${encodeURIComponent(id)}/file${query.size ? `?${query}` : ""}`;
}

const HIDDEN_MS = 20000;
const PAUSES_MS = [500, 1000, 2000, 5000, 10000];

/**
 * Watches generations over one connection, of which a browser has few: six for all tabs. So it has none while the tab is
 * hidden. `set(ids)` says which; `onChange(generation, queuePlace)` is called for each change, with the place in the
 * queue while it waits; `onEnd(id)` after the last one, and `onProblem(id, error)` if the server can't watch it. For a
 * server that is away, it goes on by itself, and tells at first what is now. At most 64 are watched: the first ones.
 */
export class Watcher {
  #source = null;
  #ids = [];
  #failures = 0;
  #timer = 0;

  constructor({ onChange, onEnd = () => {}, onProblem = () => {} }) {
    Object.assign(this, { onChange, onEnd, onProblem });
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#timer);
      this.#timer = 0;
      if (document.hidden) this.#timer = setTimeout(() => this.#close(), HIDDEN_MS);
      else if (!this.#source) this.#open();
    });
  }

  set(ids) {
    const wanted = [...new Set(ids)].slice(0, 64);
    if (wanted.join() === this.#ids.join() && (this.#source || this.#timer)) return;
    this.#ids = wanted;
    this.#close();
    this.#open();
  }

  #close() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#source?.close();
    this.#source = null;
  }

  #open() {
    this.#timer = 0;
    if (!this.#ids.length || document.hidden) return;
    const source = new EventSource(`/api/events?${new URLSearchParams(this.#ids.map((id) => ["id", id]))}`);
    this.#source = source;
    source.addEventListener("message", (event) => {
      this.#failures = 0;
      const { generation, queuePlace } = JSON.parse(event.data);
      this.onChange(generation, queuePlace);
    });
    source.addEventListener("end", (event) => this.onEnd(JSON.parse(event.data).id));
    source.addEventListener("problem", (event) => {
      const { id, error } = JSON.parse(event.data);
      const problem = new ApiError(0, error);
      if (error.code === "UNAUTHENTICATED") askForSignIn(problem);
      this.onProblem(id, problem);
    });
    source.addEventListener("done", () => source.close()); // It stays, as there is nothing more to tell of these.
    source.addEventListener("error", () => {
      // After a cut connection the browser tries again by itself, but not after an answer such as 503.
      if (source.readyState !== EventSource.CLOSED || this.#source !== source) return;
      this.#close();
      const pause = PAUSES_MS[Math.min(this.#failures, PAUSES_MS.length - 1)];
      this.#failures += 1;
      this.#timer = setTimeout(() => this.#open(), pause);
    });
  }
}
