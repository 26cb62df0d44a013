/** What tests and tools may read of the page, as `window.dgxStudio`. */

/** @param {import("./audio/take_player.js").TakePlayer} player */
export function publishHooks(player) {
  const hooks = {
    /** {sampleRate, channels, attempt, level, samples: Float32Array} as they arrived live; null if there are none. */
    capturedSamples: (id) => player.captured(id),
    /** What the player does now. */
    playback: () => ({
      id: player.id,
      state: player.state,
      position: player.position,
      seconds: player.seconds,
      underruns: player.underruns,
      level: player.store?.format.level ?? null,
      isInterrupted: player.isInterrupted,
    }),
    /** {context, node}: the last node before the sound card; null while there is none. */
    audioOutput: () => player.tap,
  };
  Object.defineProperty(window, "dgxStudio", { value: Object.freeze({ ...window.dgxStudio, ...hooks }) });
}
