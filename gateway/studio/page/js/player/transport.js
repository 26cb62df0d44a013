/** Play, pause, where the music is, repeat and volume; and a line that says why there is no sound yet. */
import { element } from "../dom.js";
import { formatSeconds } from "../drawing/time_format.js";
import { formatWait } from "./take_progress.js";

const VOLUME_KEY = "dgx-music-volume";

export class Transport {
  /** @param {import("./audio/take_player.js").TakePlayer} player */
  constructor(player) {
    this.player = player;
    this.play = element("button", { type: "button", class: "button primary play", onclick: () => player.toggle() });
    this.play.append(element("span", { class: "icon", "aria-hidden": "true" }));
    this.start = element(
      "button",
      { type: "button", class: "button", "aria-label": "Back to the start", onclick: () => player.seek(0) },
      element("span", { class: "icon start", "aria-hidden": "true" }),
    );
    this.loop = element("button", { type: "button", class: "button", "aria-pressed": "false" }, "Repeat");
    this.time = element("span", { class: "time" });
    this.badge = element("span", { class: "badge" });
    this.volume = element("input", { type: "range", min: "0", max: "1", step: "0.01", "aria-label": "Volume" });
    this.volume.value = readVolume();
    this.volume.addEventListener("input", () => this.#setVolume());
    this.status = element("p", { class: "player-status", role: "status" });
    this.problem = element("p", { class: "player-problem", role: "alert" });
    const volume = element("label", { class: "volume" }, element("span", {}, "Volume"), this.volume);
    this.root = element("div", { class: "transport" }, this.start, this.play, this.loop, this.time, this.badge, volume);
    player.addEventListener("state", () => this.show());
    player.addEventListener("position", () => this.showTime());
    player.addEventListener("buffer", () => player.state !== "playing" && this.#showStatus());
    player.addEventListener("problem", ({ detail }) => (this.problem.textContent = detail.message));
    this.#setVolume();
    this.show();
  }

  /** Length of the take where the player does not know it yet. */
  knownSeconds = 0;

  show() {
    const { player } = this;
    const isOn = player.wantsToPlay;
    this.play.classList.toggle("playing", isOn);
    this.play.setAttribute("aria-label", isOn ? "Pause" : "Play");
    this.play.disabled = !player.id;
    this.loop.setAttribute("aria-pressed", String(Boolean(player.loop)));
    const level = player.store?.format.level;
    this.badge.hidden = !level;
    this.badge.className = level === "LIVE" ? "badge live" : "badge";
    this.badge.textContent = level === "LIVE" ? "As generated" : "Finished file";
    this.badge.title = level === "LIVE" ? "The samples as the model made them, before mastering" : "The samples of the file";
    this.#showStatus();
    if (player.state === "playing") this.problem.textContent = "";
    this.showTime();
  }

  showTime() {
    const seconds = this.player.seconds || this.knownSeconds;
    const text = `${formatSeconds(this.player.position)} / ${formatSeconds(seconds)}`;
    if (this.time.textContent !== text) this.time.textContent = text;
  }

  clearProblem() {
    this.problem.textContent = "";
  }

  #showStatus() {
    const text = this.#describe();
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  #describe() {
    const { player } = this;
    if (player.isBlocked) return "The browser permits sound after a click: press Play.";
    if (player.isInterrupted) return "The connection was lost; it goes on from here as soon as the server answers.";
    if (!player.wantsToPlay || player.state === "playing") return "";
    if (!player.store) return "Waiting for the first sound …";
    const wait = player.waitSeconds;
    // In steps, as each new text is read aloud.
    const rounded = wait > 10 ? Math.ceil(wait / 10) * 10 : Math.ceil(wait / 5) * 5;
    if (wait > 1) return `It arrives slower than it plays: it starts in about ${formatWait(rounded)}, to play without a gap.`;
    return player.underruns ? "Waiting for more of the music …" : "";
  }

  #setVolume() {
    this.player.volume = Number(this.volume.value) ** 2; // Loudness is heard by powers of the amplitude.
    this.volume.setAttribute("aria-valuetext", `${Math.round(100 * this.volume.value)} %`);
    try {
      localStorage.setItem(VOLUME_KEY, this.volume.value);
    } catch {
      // A browser that keeps nothing for this page plays nevertheless.
    }
  }
}

function readVolume() {
  try {
    return localStorage.getItem(VOLUME_KEY) ?? "1";
  } catch {
    return "1";
  }
}
