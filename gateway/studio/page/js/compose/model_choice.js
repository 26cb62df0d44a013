/** Which models there are, what they can do, and why something can't be done with one. */
import { call } from "../api.js";
import { emit } from "../state.js";

const ABILITIES = {
  CAPABILITY_CONTINUATION: "continue audio",
  CAPABILITY_NEGATIVE_PROMPT: "be guided away from a text",
  CAPABILITY_WEIGHTED_PROMPTS: "be guided by several texts",
  CAPABILITY_SECTIONS: "change its prompt over time",
  CAPABILITY_MELODY: "follow a melody",
  CAPABILITY_STYLE: "follow the style of an excerpt",
  CAPABILITY_ADAPTERS: "take LoRA adapters",
  CAPABILITY_LYRICS: "sing lyrics",
  CAPABILITY_STEPS: "take a number of denoising steps",
};

/** A model that has a capability, if it can be downloaded. musicgen-small has the others. */
const TO_PULL = {
  CAPABILITY_MELODY: "musicgen-melody",
  CAPABILITY_STYLE: "musicgen-style",
  CAPABILITY_LYRICS: "acestep-v15-xl-turbo-diffusers",
  CAPABILITY_STEPS: "stable-audio-open-1.0",
};

class Models {
  /** As in ListModels: the default one first. */
  all = [];

  async load() {
    this.all = (await call("ListModels")).models ?? [];
    emit("models", {});
  }

  get usable() {
    return this.all.filter((model) => !model.problem);
  }

  /** The model with this name, or the default one. */
  find(name) {
    return this.all.find((model) => model.name === name) ?? this.usable[0] ?? null;
  }

  /** A model that has the capability: this one if it has, else the first that has; null if none has. */
  able(capability, model) {
    return [model, ...this.usable].find((each) => each?.capabilities?.includes(capability)) ?? null;
  }

  /** Why this model can't do that; empty if it can. */
  whyNot(capability, model) {
    if (!model || model.capabilities?.includes(capability)) return "";
    const able = this.usable.filter((each) => each.capabilities?.includes(capability)).map((each) => each.name);
    if (!able.length) return this.whyNone(capability);
    return `The model ${model.name} can't ${ABILITIES[capability]}. Models that can: ${able.join(", ")}.`;
  }

  /** Why no model can do that, and what to do; empty if one can. */
  whyNone(capability) {
    if (!this.all.length || this.able(capability, null)) return "";
    const name = TO_PULL[capability] ?? "musicgen-small";
    return `No installed model can ${ABILITIES[capability]}; run: dgx-music models pull ${name}`;
  }

  /** Pairs of name and text for a choice, and whether each can be used. */
  get choices() {
    return this.all.map((model) => ({
      value: model.name,
      text: `${model.name}${model.isDefault ? " (default)" : ""}${model.problem ? " – not available" : ""}`,
      disabled: Boolean(model.problem),
      title: model.problem || model.description || "",
    }));
  }
}

/** The models of the server. Each load is told by the event "models". */
export const models = new Models();

/** What is good to know of a model before one uses it, in a line. */
export function describeModel(model) {
  if (!model) return "No model is installed; run `dgx-music models pull musicgen-small`.";
  const rate = `${(model.sampleRateHz / 1000).toLocaleString([], { maximumFractionDigits: 1 })} kHz`;
  const channels = model.channels === 1 ? "mono" : "stereo";
  const licence = model.license ? `, licence ${model.license}` : "";
  return `${model.description} ${rate} ${channels}${licence}.`.trim();
}
