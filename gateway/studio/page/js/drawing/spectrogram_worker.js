// A Web Worker that computes spectrograms: it is sent {number, samples, rate, scale}, and answers {number, levels}.

import { computeLevels } from "./spectrum_levels.js";

addEventListener("message", ({ data: { number, samples, rate, scale } }) => {
  const levels = computeLevels(samples, rate, scale);
  postMessage({ number, levels }, [levels.buffer]);
});
