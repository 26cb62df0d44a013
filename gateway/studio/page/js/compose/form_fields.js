/** The fields of the form, in their groups. Each says in plain words what it does. */
import { element } from "../dom.js";
import { AudioSource } from "./audio_source.js";
import { areaField, checkField, choiceField, numberField, textField } from "./field.js";
import { parseSeed } from "./requests.js";
import { Rows } from "./rows.js";

const FORMATS = [
  ["", "WAV, 24 bits (default)"],
  ["FILE_FORMAT_WAV_PCM_16", "WAV, 16 bits"],
  ["FILE_FORMAT_WAV_FLOAT", "WAV, 32-bit floats"],
  ["FILE_FORMAT_FLAC_24", "FLAC, 24 bits"],
  ["FILE_FORMAT_FLAC_16", "FLAC, 16 bits"],
  ["FILE_FORMAT_AIFF_PCM_24", "AIFF, 24 bits"],
  ["FILE_FORMAT_MP3", "MP3"],
  ["FILE_FORMAT_OGG_OPUS", "Opus"],
  ["FILE_FORMAT_OGG_VORBIS", "Ogg Vorbis"],
  ["FILE_FORMAT_M4A_AAC", "M4A (AAC)"],
];
const LOUDNESS = [
  ["", "As the server is set (−16 LUFS)"],
  ["LOUDNESS_PROFILE_STREAMING", "Streaming, −14 LUFS"],
  ["LOUDNESS_PROFILE_DEFAULT", "Default, −16 LUFS"],
  ["LOUDNESS_PROFILE_BROADCAST", "Broadcast, −23 LUFS"],
  ["LOUDNESS_PROFILE_NONE", "As generated"],
];
const ADAPTERS = 4;

/** Builds all fields. `fields` are in the order of the form; `groups` are the elements to show. */
export function buildFields() {
  const main = [
    areaField(
      {
        path: "prompt",
        label: "Prompt",
        help: "Describe the music: genre, instruments, mood, tempo (“90 BPM”), key (“A minor”).",
      },
      { rows: "4", maxlength: "10000", required: true, placeholder: "lo-fi hip hop with warm piano, 82 BPM, D minor" },
    ),
    choiceField({ path: "model_name", label: "Model", wide: true }, []),
    numberField(
      { path: "duration_seconds", label: "Duration, s", help: "Empty: 16 s, or what the model can." },
      { min: "0.1", max: "3600", placeholder: "16" },
    ),
    numberField({ path: "count", label: "Takes", help: "Each has another seed." }, { min: "1", max: "16", step: "1", value: "1" }),
    textField(
      {
        path: "seed",
        label: "Seed",
        parse: parseSeed,
        wide: true,
        help: "Empty: a random one. The same seed and settings give the same music again.",
      },
      { inputmode: "numeric", placeholder: "random" },
    ),
  ];
  const sampling = [
    numberField(
      {
        path: "sampling.guidance_scale",
        label: "Guidance",
        help: "How closely the music follows the prompt: 1 freely, 3 as usual, above 6 very strictly.",
      },
      { min: "0", max: "20", placeholder: "model’s" },
    ),
    numberField(
      { path: "sampling.temperature", label: "Temperature", help: "Below 1 more predictable, above 1 more adventurous." },
      { min: "0.01", max: "10", placeholder: "1" },
    ),
    numberField(
      { path: "sampling.top_k", label: "Top-k", help: "Choose among so many of the likeliest sounds; 0: among all." },
      { min: "0", max: "2048", step: "1", placeholder: "250" },
    ),
    numberField(
      { path: "sampling.top_p", label: "Top-p", help: "Choose among the likeliest sounds of this probability together; 0: off." },
      { min: "0", max: "1", placeholder: "0" },
    ),
    numberField(
      { path: "conditioning.steps", label: "Steps", help: "Denoising steps: more take longer and are finer." },
      { min: "1", max: "500", step: "1", placeholder: "model’s" },
    ),
  ];
  const negative = areaField(
    { path: "conditioning.negative_prompt", label: "Avoid", help: "What the music is guided away from, e.g. “vocals, distortion”." },
    { rows: "2", maxlength: "10000" },
  );
  const lyrics = areaField(
    { path: "conditioning.lyrics", label: "Lyrics", help: "Words to sing; a line such as [chorus] names a part." },
    { rows: "4", maxlength: "10000" },
  );
  const loop = [
    numberField(
      { path: "loop.bars", label: "Bars", help: "Makes a loop of so many bars; the duration follows from that." },
      { min: "1", max: "64", step: "1", placeholder: "no loop" },
    ),
    numberField(
      { path: "loop.bpm", label: "Tempo, BPM", help: "Empty: the one that the prompt names." },
      { min: "20", max: "400", placeholder: "from the prompt" },
    ),
    numberField({ path: "loop.beats_per_bar", label: "Beats in a bar", help: "" }, { min: "1", max: "16", step: "1", placeholder: "4" }),
  ];
  const file = [
    choiceField({ path: "output.format", label: "Format" }, FORMATS),
    choiceField({ path: "output.profile", label: "Loudness" }, LOUDNESS),
    numberField(
      { path: "priority", label: "Priority", help: "−10 to 10; of your takes that wait, higher ones are made first." },
      { min: "-10", max: "10", step: "1", placeholder: "0" },
    ),
    checkField({ path: "output.tag_prompt", label: "Write the prompt into the file", help: "Everyone who gets the file can read it." }),
  ];
  const rows = [buildSections(), buildFurtherPrompts(), buildAdapters()];
  const sources = buildSources();
  const promptWeight = numberField(
    { path: "conditioning.prompt_weight", label: "Weight of the main prompt", help: "Beside further prompts." },
    { min: "0.01", max: "10", placeholder: "1" },
  );
  const [sections, further, adapters] = rows;
  const groups = [
    element("div", { class: "fields" }, ...roots(main)),
    fold("Sections, further prompts, lyrics", sections.root, further.root, promptWeight.root, negative.root, lyrics.root),
    fold("Melody and style from audio", ...roots(Object.values(sources))),
    fold("Loop", grid(loop)),
    fold("Sampling and adapters", grid(sampling), adapters.root),
    fold("File and priority", grid(file)),
  ];
  return { fields: [...main, negative, lyrics, promptWeight, ...sampling, ...loop, ...file], rows, sources, groups };
}

function buildSections() {
  return new Rows({
    path: "conditioning.sections",
    title: "Sections",
    help: "Parts with prompts of their own; between them, the main prompt applies.",
    addLabel: "Add a section",
    most: 32,
    build: (_index, rows) => {
      const start = numberField({ label: "From, s" }, { min: "0" });
      const end = numberField({ label: "To, s" }, { min: "0" });
      start.value = rows.at(-1)?.endSeconds.control.value ?? "0";
      return { startSeconds: start, endSeconds: end, prompt: textField({ label: "Prompt", wide: true }) };
    },
  });
}

function buildFurtherPrompts() {
  return new Rows({
    path: "conditioning.further_prompts",
    title: "Further prompts",
    help: "More texts that guide the same music; only the ratio of the weights matters.",
    addLabel: "Add a prompt",
    most: 3,
    build: () => {
      const weight = numberField({ label: "Weight" }, { min: "0.01", max: "10" });
      weight.value = "1";
      return { prompt: textField({ label: "Prompt", wide: true }), weight };
    },
  });
}

function buildAdapters() {
  return new Rows({
    path: "conditioning.adapters",
    title: "LoRA adapters",
    help: "Installed adapters that change the model’s style.",
    addLabel: "Add an adapter",
    most: ADAPTERS,
    build: () => ({
      name: textField({ label: "Name" }, { list: "adapter-names" }),
      scale: numberField({ label: "Scale" }, { min: "-4", max: "4", placeholder: "1" }),
    }),
  });
}

function buildSources() {
  const startOf = (path) => numberField({ path, label: "From, s", help: "Where in the audio to begin." }, { min: "0", placeholder: "0" });
  return {
    melody: new AudioSource({
      path: "conditioning.melody",
      title: "Melody",
      help: "The music follows the melody of this audio.",
      fields: { startSeconds: startOf("conditioning.melody.start_seconds") },
    }),
    style: new AudioSource({
      path: "conditioning.style",
      title: "Style",
      help: "The music follows the style of a few seconds of this audio.",
      fields: {
        startSeconds: startOf("conditioning.style.start_seconds"),
        textGuidance: numberField(
          { path: "conditioning.style.text_guidance", label: "Text over style", help: "How much more the prompt counts." },
          { min: "1", max: "10", placeholder: "5" },
        ),
      },
    }),
  };
}

function fold(title, ...children) {
  return element("details", { class: "more" }, element("summary", {}, title), ...children);
}

function grid(fields) {
  return element("div", { class: "fields" }, ...roots(fields));
}

function roots(parts) {
  return parts.map((part) => part.root);
}
