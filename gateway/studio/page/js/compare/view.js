// The region in which takes are compared.

import { call } from "../api.js";
import { emit } from "../state.js";
import { Comparison, MIN_TAKES } from "./comparison.js";
import { layOut, retryButton } from "./layout.js";
import { Loop } from "./loop.js";
import { loadCurve, loadSpectrogram, toMono } from "./pictures/picture_loading.js";
import { Plots } from "./pictures/plots.js";
import { Playback } from "./playback.js";
import { Ranking } from "./ranking/ranking.js";
import { Results } from "./ranking/results.js";
import { loadTakes } from "./take_loading.js";
import { TakeSwitch } from "./take_switch.js";
import { Transport } from "./transport.js";

/** Fills `root`, and shows and hides it. `onClose` is called when the user closes it. */
export class CompareView {
  comparison = null;
  #playback = null;
  #loading = null;
  #opened = "";
  #showsPictures = false;

  constructor(root, { onClose }) {
    this.root = root;
    const [select, toggle] = [(index) => this.select(index), () => this.toggle()];
    this.takes = new TakeSwitch({ onSelect: select, onToggle: toggle, onRemove: (id) => emit("compare-remove", { id }) });
    this.transport = new Transport({
      toggle,
      toggleLoop: () => this.loop.toggle(),
      loopFrom: () => this.loop.setEnd(0),
      loopTo: () => this.loop.setEnd(1),
      match: (isOn) => this.match(isOn),
      blind: (isOn) => this.setBlind(isOn),
      pictures: (isOn) => this.showPictures(isOn),
    });
    const [seek, repeat] = [(seconds) => this.seek(seconds), (range) => this.loop.set(range, true)];
    this.plots = new Plots({ onSeek: seek, onLoop: repeat, onToggle: toggle });
    this.loop = new Loop({ axis: this.plots.axis, transport: this.transport });
    this.ranking = new Ranking({ onChange: (text) => this.#noteRanking(text), onSelect: select });
    this.results = new Results();
    const save = () => this.saveRanking();
    Object.assign(this, layOut(root, { ...this, onClose, onSave: save }));
  }

  get isOpen() {
    return !this.root.hidden;
  }

  /** Loads the takes with these ids and shows them. */
  async open(ids) {
    this.root.hidden = false;
    if (ids.join() === this.#opened) return this.plots.draw(); // It is there, or on its way.
    this.unload();
    this.#opened = ids.join();
    const loading = (this.#loading = new AbortController());
    this.problem.hidden = true;
    this.body.hidden = true;
    this.spoken.textContent = "";
    try {
      const takes = await loadTakes(ids, loading.signal);
      if (takes.length < MIN_TAKES) throw new Error("Add a second finished take to the comparison: “Compare” in its menu.");
      await this.#show(takes, loading.signal);
    } catch (error) {
      if (loading.signal.aborted) return;
      this.#opened = "";
      this.#report(error, () => this.open(ids));
    }
  }

  async #show(takes, signal) {
    const comparison = new Comparison(takes);
    if (this.comparison?.isBlind) comparison.restart(true);
    this.comparison = comparison;
    this.body.hidden = false;
    const seconds = Math.max(...takes.map((take) => take.seconds));
    this.transport.setEnabled(false);
    this.plots.show(comparison, seconds);
    this.#deal();
    if (document.activeElement === this.title) this.takes.focus();
    this.#loadCurves(takes, signal);
    const playback = await Playback.load(comparison, {
      signal,
      onProgress: (fraction) => (this.status.textContent = `Loading the takes: ${Math.floor(100 * fraction)} %`),
      onSamples: (index, channels, rate) => this.#loadSpectrogram(comparison, index, channels, rate, seconds, signal),
    });
    this.#playback = playback;
    this.loop.reset(playback);
    this.status.textContent = "";
    if (Math.abs(playback.seconds - seconds) > 0.01) this.plots.axis.setLength((this.plots.seconds = playback.seconds));
    this.transport.setEnabled(true);
    this.#noteMix();
    playback.select(comparison.active);
    playback.addEventListener("position", ({ detail }) => this.#showPosition(detail));
    this.#showPosition({ seconds: 0, isPlaying: false });
    this.plots.draw();
    this.root.dispatchEvent(new Event("ready"));
  }

  async #loadCurves(takes, signal) {
    const again = () => {
      if (!this.#playback) this.unload(); // What loads the samples has failed too, or is about to.
      this.problem.hidden = true;
      if (this.#playback) this.#loadCurves(takes, signal);
      else this.open(takes.map(({ id }) => id));
    };
    for (const [index, { id }] of takes.entries()) {
      const load = async () => (this.plots.curves[index] ??= await loadCurve(id, { signal }));
      await this.#picture(signal, load, again);
    }
  }

  async #loadSpectrogram(comparison, index, channels, rate, seconds, signal) {
    const mono = toMono(channels);
    const load = async () => (this.plots.spectrum[index] = await loadSpectrogram(mono, rate, seconds, { signal }));
    await this.#picture(signal, load);
  }

  /** A picture that fails costs no hearing. */
  async #picture(signal, load, again = null) {
    try {
      await load();
      if (!signal.aborted) this.plots.draw();
    } catch (error) {
      if (!signal.aborted) this.#report(error, again);
    }
  }

  /** Tells of an error, and offers to try again what `again` does. */
  #report(error, again = null) {
    this.problem.hidden = false;
    this.problem.replaceChildren(error.message, ...(again ? [retryButton(again)] : []));
    this.status.textContent = "";
  }

  /** Hides it; if it is opened again with the same takes, all is as it was. */
  hide() {
    this.pause();
    this.root.hidden = true;
  }

  /** Forgets the takes, which take much memory. */
  unload() {
    this.#loading?.abort();
    this.#playback?.close();
    this.#playback = null;
    this.#opened = "";
    this.loop.reset(null);
    this.transport.setPlaying(false);
  }

  #showPosition({ seconds, isPlaying }) {
    this.plots.setPosition(seconds);
    this.transport.setTime(seconds, this.#playback?.seconds ?? 0);
    this.transport.setPlaying(isPlaying);
  }

  /** Shows all that depends on letters and on what may be seen. */
  #deal() {
    const { comparison } = this;
    this.takes.show(comparison);
    this.ranking.list.replaceChildren();
    this.ranking.show(comparison);
    this.plots.deal();
    this.plots.setBare(!comparison.isRevealed && !this.#showsPictures);
    this.transport.show(comparison, this.#showsPictures);
    this.root.classList.toggle("blind", !comparison.isRevealed);
    this.#noteMix();
    this.#noteSave();
  }

  #noteMix() {
    this.#playback?.setGains(this.comparison.gains);
  }

  #noteSave() {
    const { isSaved, isRevealed } = this.comparison;
    this.save.textContent = isSaved ? "Saved" : isRevealed ? "Save the ranking" : "Save and reveal";
    this.save.setAttribute("aria-disabled", String(isSaved));
  }

  #noteRanking(text) {
    this.spoken.textContent = text;
    this.status.textContent = "";
    this.#noteSave();
  }

  /** Makes a take the one that is heard. */
  select(index) {
    const { comparison } = this;
    if (!comparison || index === comparison.active || !comparison.takes[index]) return;
    comparison.active = index;
    this.#playback?.select(index);
    this.takes.update();
    this.ranking.update();
    this.plots.draw();
    this.spoken.textContent = `Now ${comparison.letters[index]}`;
  }

  /** Selects by the place of the letter, 0 for A. */
  selectPlace(place) {
    this.select(this.comparison?.shown[place] ?? -1);
  }

  /** Selects the next letter, or with -1 the one before. */
  step(by) {
    const { shown, active } = this.comparison;
    this.selectPlace((shown.indexOf(active) + by + shown.length) % shown.length);
  }

  toggle() {
    if (!this.#playback) return;
    if (this.#playback.isPlaying) this.pause();
    else this.#playback.play().catch((error) => this.#report(error));
  }

  pause() {
    this.#playback?.pause();
  }

  seek(seconds) {
    this.#playback?.seek(seconds);
  }

  /** Goes on or back by so many seconds. */
  skip(seconds) {
    if (this.#playback) this.seek(this.#playback.position + seconds);
  }

  match(isOn) {
    this.comparison.isMatched = isOn;
    this.#noteMix();
    this.takes.show(this.comparison);
    this.plots.draw();
  }

  setBlind(isBlind) {
    this.pause();
    this.#showsPictures = false;
    this.comparison.restart(isBlind);
    this.#playback?.select(this.comparison.active);
    this.#deal();
    this.status.textContent = isBlind ? "The takes are shuffled." : "";
  }

  showPictures(isOn) {
    this.#showsPictures = isOn;
    this.plots.setBare(!this.comparison.isRevealed && !isOn);
  }

  /** Moves the take that is heard up (-1) or down (1) in the ranking. */
  rank(by) {
    this.ranking.move(this.comparison.active, by);
  }

  async saveRanking() {
    const { comparison } = this;
    if (comparison.isSaved || this.isSaving) return;
    this.isSaving = true;
    this.status.textContent = "Saving…";
    try {
      await call("CreateComparison", comparison.request);
      comparison.markSaved();
      if (comparison === this.comparison) this.#deal();
      const best = comparison.letters[comparison.ranking[0]];
      this.status.textContent = `Saved. ${best} is best.`;
      this.results.markStale();
    } catch (error) {
      this.status.textContent = "";
      this.#report(error);
    } finally {
      this.isSaving = false;
    }
  }
}
