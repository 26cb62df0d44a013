/** Which models there are, what they can do, and why something can't be done with one. */
import { call } from "../api.js";

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

export class Models {
  /** As in ListModels: the default one first. */
  all = [];

  async load() {
    this.all = (await call("ListModels")).models ?? [];
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
    const others = able.length ? `Models that can: ${able.join(", ")}.` : "No installed model can.";
    return `The model ${model.name} can't ${ABILITIES[capability]}. ${others}`;
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

/** What is good to know of a model before one uses it, in a line. */
export function describeModel(model) {
  if (!model) return "No model is installed; run `dgx-music models pull musicgen-small`.";
  const rate = `${(model.sampleRateHz / 1000).toLocaleString([], { maximumFractionDigits: 1 })} kHz`;
  const channels = model.channels === 1 ? "mono" : "stereo";
  const licence = model.license ? `, licence ${model.license}` : "";
  return `${model.description} ${rate} ${channels}${licence}.`.trim();
}
