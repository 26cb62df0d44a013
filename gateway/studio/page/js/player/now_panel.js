/** The selected take: its waveform, playback, progress, and what can be done with it. */
import { ApiError, call } from "../api.js";
import { element } from "../dom.js";
import { registerShortcut } from "../shortcuts.js";
import { emit, getTake, isFinished, on, selectedId } from "../state.js";
import { RepeatCommands } from "./repeat_commands.js";
import { SelectionBar } from "./selection_bar.js";
import { cancelTake, retryTake } from "./take_changes.js";
import { describeProgress, STATES } from "./take_progress.js";
import { TakeWave } from "./take_wave.js";
import { Transport } from "./transport.js";

const EXAMPLES = ["lo-fi hip hop with warm piano, 82 BPM", "driving techno at 130 BPM in A minor", "calm ambient in D major, slow"];
const EXAMPLE_SECONDS = 20;

export class NowPanel {
  #take = null;
  #queue = {};
  #playing = "";

  /** @param {import("./audio/take_player.js").TakePlayer} player */
  constructor(region, player) {
    this.player = player;
    this.prompt = element("p", { class: "now-prompt", dir: "auto" });
    this.state = element("span", { class: "badge" });
    this.progress = element("progress", { class: "progress", max: "1", "aria-label": "Progress of this take" });
    this.progressText = element("p", { class: "progress-text" });
    this.cancel = element("button", { type: "button", class: "button danger", onclick: () => cancelTake(this.#take.id) }, "Cancel");
    this.retry = element("button", { type: "button", class: "button", onclick: () => retryTake(this.#take.id) }, "Try again");
    this.reuse = element("button", { type: "button", class: "button small" }, "Use these settings");
    this.reuse.addEventListener("click", () => emit("reuse", { generation: this.#take }));
    this.wave = new TakeWave(player);
    this.transport = new Transport(player);
    this.bar = new SelectionBar(this.wave.view, (range) => this.#repeat(range));
    this.commands = new RepeatCommands();
    this.empty = showExamples();
    this.head = element("div", { class: "now-head" }, this.prompt, this.state, this.reuse);
    this.work = element("div", { class: "now-progress" }, this.progress, this.progressText, this.cancel, this.retry);
    const { transport } = this;
    this.body = element("div", { class: "now-body", hidden: true }, this.head, this.wave.root, transport.root, transport.status);
    const actions = element("div", { id: "take-actions" }); // Filled by details/details.js.
    this.body.append(transport.problem, this.work, actions, this.bar.root, this.commands.root);
    region.append(this.empty, this.body);
    this.transport.loop.addEventListener("click", () => this.#toggleLoop());
    const repeat = { keys: ["l"], label: "Repeat the take, or the part that is selected", group: "Player" };
    registerShortcut({ ...repeat, when: () => this.#take !== null, run: () => this.#toggleLoop() });
    player.addEventListener("state", () => {
      this.#tellPlaying();
      this.#changeOver();
    });
    this.#listen();
    if (selectedId()) this.select(selectedId());
  }

  #listen() {
    on("select", ({ id, generation }) => this.select(id, generation));
    on("changed", ({ generation, queue }) => generation.id === this.#take?.id && this.#show(generation, queue));
    on("deleted", ({ id }) => id === this.#take?.id && this.select(""));
    on("toggle", () => this.#take && this.player.toggle());
    on("seek", ({ seconds, relative }) => this.#take && this.player.seek(relative ? this.player.position + seconds : seconds));
    on("play", ({ id, from }) => this.#play(id, from));
  }

  /** Shows a take; none for an empty id. */
  async select(id, known = getTake(id)) {
    if (id && id === this.#take?.id) return;
    if (!id) {
      this.#take = null;
      this.player.unload();
      this.wave.clear();
      this.body.hidden = true;
      this.empty.hidden = false;
      return;
    }
    if (known) {
      this.#begin(known);
      return;
    }
    try {
      const { generation } = await call("GetGeneration", { id });
      if (selectedId() === id) emit("changed", { generation });
      if (selectedId() === id && this.#take?.id !== id) this.#begin(generation);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      emit("toast", { text: error.message, kind: "error" });
    }
  }

  #begin(generation) {
    this.#take = null;
    this.#queue = {};
    this.transport.clearProblem();
    this.player.load(generation.id);
    this.#show(generation);
  }

  #show(generation, queue) {
    const before = this.#take?.state;
    this.#take = generation;
    if (queue) this.#queue = queue;
    this.empty.hidden = true;
    this.body.hidden = false;
    this.prompt.textContent = generation.prompt;
    this.state.textContent = STATES[generation.state] ?? "";
    this.state.className = `badge ${badgeOf(generation.state)}`;
    this.transport.knownSeconds = generation.durationSeconds;
    this.wave.show(generation);
    this.bar.show(generation);
    this.commands.show(generation);
    this.#showProgress(generation);
    if (before !== generation.state) this.#enter(generation, before);
  }

  #showProgress(generation) {
    const isRunning = !isFinished(generation);
    const isFailed = generation.state === "GENERATION_STATE_FAILED";
    this.work.hidden = !isRunning && !isFailed;
    this.progress.hidden = this.cancel.hidden = !isRunning;
    this.retry.hidden = !isFailed;
    if (isFailed) {
      this.progressText.textContent = generation.errorMessage;
    } else if (isRunning) {
      const { text, share } = describeProgress(generation, this.#queue);
      this.progressText.textContent = generation.errorMessage ? `${text} (before: ${generation.errorMessage})` : text;
      if (share === null) this.progress.removeAttribute("value");
      else this.progress.value = share;
    }
  }

  /** The take is in another state than before. */
  #enter(generation, before) {
    const { player } = this;
    const isPlayable = ["PENDING", "PROCESSING", "COMPLETED"].some((state) => generation.state === `GENERATION_STATE_${state}`);
    this.transport.root.classList.toggle("silent", !isPlayable);
    if (before && isFinished({ state: before })) {
      player.unload(); // It is tried again.
      player.load(generation.id);
    }
    if (!isFinished(generation)) player.fetch(); // To draw it, and to have it when the user wants to hear it.
    else if (!isPlayable) player.stop();
    this.#changeOver();
    this.transport.show();
  }

  /** Tells the other parts which take sounds. */
  #tellPlaying() {
    const id = this.player.wantsToPlay ? this.player.id : "";
    if (id === this.#playing) return;
    this.#playing = id;
    emit("playing", { id });
  }

  /** Goes over to the finished file as soon as that is not heard as a change of the level. */
  #changeOver() {
    const isIdle = !this.player.wantsToPlay || this.player.state === "ended";
    const isFinal = this.#take?.state === "GENERATION_STATE_COMPLETED";
    if (isFinal && isIdle && this.player.id === this.#take.id) this.player.switchToFile();
  }

  #play(id, from) {
    if (id && id !== this.#take?.id) emit("select", { id });
    if (from !== undefined) this.player.seek(from);
    this.player.play();
  }

  #toggleLoop() {
    const { loop } = this.player;
    if (loop) this.player.setLoop(null);
    else this.#startLoop(this.wave.view.selection);
  }

  #repeat(range) {
    if (this.player.loop) this.#startLoop(range);
  }

  #startLoop(range) {
    const isWhole = !range;
    this.player.setLoop(range ?? [0, this.wave.view.seconds], isWhole && Boolean(this.#take.loop));
  }
}

/** What there is to see while no take is selected. */
function showExamples() {
  const buttons = EXAMPLES.map((prompt) => {
    const generation = { prompt, durationSeconds: EXAMPLE_SECONDS };
    return element("button", { type: "button", class: "button", onclick: () => emit("reuse", { generation, show: true }) }, prompt);
  });
  const text = element("p", {}, "Describe some music, or choose a take from the history. For example:");
  return element("div", { class: "now-empty" }, text, element("div", { class: "examples" }, ...buttons));
}

function badgeOf(state) {
  if (state === "GENERATION_STATE_FAILED") return "error";
  return state === "GENERATION_STATE_PROCESSING" ? "live" : "";
}
