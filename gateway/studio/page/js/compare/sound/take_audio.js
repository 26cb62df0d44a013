// The samples of finished takes, as the server decodes them.

import { request } from "../../api.js";
import { patiently } from "../patience.js";

const MAX_BYTES = 1.2e9;

/**
 * Returns the samples of a finished take in `channels` channels at `sampleRate`: {channels: [Float32Array], rate}. The
 * server converts them. A connection that breaks off is taken up where it broke. `onProgress` is told the fraction.
 */
export async function loadSamples(id, { sampleRate, channels, signal, onProgress = () => {} }) {
  const state = { received: 0, parts: null };
  await patiently(() => receive(id, { sampleRate, channels, signal, onProgress }, state), signal);
  return { channels: state.parts, rate: sampleRate };
}

/** Throws if takes of these lengths would take too much memory. */
export function requireMemory(seconds, sampleRate, channels) {
  const bytes = seconds.reduce((sum, one) => sum + one, 0) * sampleRate * channels * 4;
  if (bytes <= MAX_BYTES) return;
  const minutes = Math.floor(MAX_BYTES / (sampleRate * channels * 4) / 60);
  throw new Error(`these takes are too long to be compared together: at most ${minutes} minutes in all; take one away`);
}

async function receive(id, { sampleRate, channels, signal, onProgress }, state) {
  const query = new URLSearchParams({
    level: "FINAL",
    start_frame: String(state.received),
    sample_rate_hz: String(sampleRate),
    channels: String(channels),
  });
  const response = await request(`/api/generations/${encodeURIComponent(id)}/live?${query}`, { signal });
  const expected = Number(response.headers.get("dgx-music-expected-frames"));
  if (Number(response.headers.get("dgx-music-channels")) !== channels) {
    throw new RangeError("the server sent another number of channels than it was asked for");
  }
  state.parts ??= Array.from({ length: channels }, () => new Float32Array(expected));
  const frameBytes = 4 * channels;
  let rest = new Uint8Array(0);
  for await (const chunk of chunksOf(response.body)) {
    const bytes = rest.length ? joined(rest, chunk) : chunk;
    const frames = Math.min(Math.floor(bytes.length / frameBytes), expected - state.received);
    split(bytes, frames, state);
    rest = bytes.slice(frames * frameBytes);
    onProgress(expected ? state.received / expected : 1);
  }
  if (state.received < expected) throw new Error("the samples ended early");
}

async function* chunksOf(body) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function split(bytes, frames, state) {
  const { parts } = state;
  const samples = new Float32Array(bytes.slice(0, frames * 4 * parts.length).buffer);
  for (let channel = 0; channel < parts.length; channel++) {
    const part = parts[channel];
    for (let frame = 0; frame < frames; frame++) part[state.received + frame] = samples[frame * parts.length + channel];
  }
  state.received += frames;
}

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
