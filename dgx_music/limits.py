"""The limits of the public contract as numbers, for clients and servers; the .proto files state them in comments."""

from __future__ import annotations

MAX_PROMPT_CHARACTERS = 10_000
MAX_SEED = 2**63 - 1
"""The minimum is 0."""
MIN_DURATION_SECONDS, MAX_DURATION_SECONDS = 0.1, 3600.0
"""Of a generation and of a clip. Most models generate less than the maximum."""
DEFAULT_DURATION_SECONDS = 16.0
"""Of a generation, or what the model can if that is less."""
MIN_PRIORITY, MAX_PRIORITY = -10, 10
MIN_WEIGHT, MAX_WEIGHT = 0.1, 100.0
"""A client's share of what is generated, in relation to others; 1 unless its token says otherwise."""
MAX_CHECKPOINT_BYTES = 1 << 20
"""What a worker has done of a generation that it hands back. An hour of a model with 8 codebooks would need 3 MB."""
MAX_RATING = 5
"""The minimum is 1; 0 stands for no rating."""
MAX_BATCH_SIZE = 100
"""The most generations that one BatchCreateGenerations creates."""

MAX_TEMPERATURE = 10.0
"""The temperature is above 0."""
MAX_TOP_K = 2048
SAMPLING_RANGES = {"top_k": (0, MAX_TOP_K), "top_p": (0, 1), "guidance_scale": (0, 20)}
"""Sampling parameter, other than the temperature → its minimum and maximum."""

MIN_CONTINUATION_SECONDS, MAX_CONTINUATION_SECONDS = 0.5, 25.0
DEFAULT_CONTINUATION_SECONDS = 10.0

MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 8_000, 192_000
MAX_CHANNELS = 2
MIN_TARGET_LUFS, MIN_CEILING_DBTP = -70.0, -20.0
"""The maximum of both is 0."""
MAX_QUALITY = 10
"""Of a lossy format at a variable bit rate; the minimum is 0."""
MAX_PUBLICATION_CHARACTERS = 200
"""Of each text in PublicationTags."""

MAX_CHUNK_BYTES = 65_536
"""The most PCM bytes in one AudioChunk, and the most bytes of a file in one message of Download and ImportClip."""

MAX_TEMPO_BPM = 1000.0
"""Of a tag, and of a tempo hint; 0 stands for an unknown tempo."""
MAX_COVER_BYTES = 3 * 2**20
MAX_SECTIONS = 1000
"""Of one export."""
MAX_GENERATION_FACTS_BYTES = 16 * 2**10
"""Of ExportHeader.generation_facts, as a message."""

MAX_NAME_CHARACTERS = 200
"""Of a model, an adapter, a client."""
MAX_FURTHER_PROMPTS = 3
MAX_PROMPT_WEIGHT = 10.0
"""The weight of a prompt is above 0."""
MAX_PROMPT_SECTIONS = 32
MAX_ADAPTERS = 4
ADAPTER_SCALE_RANGE = (-4, 4)
MAX_STEPS = 500
"""0 stands for the model's default."""
STYLE_SECONDS_RANGE = (1.5, 4.5)
MAX_STYLE_QUANTIZERS = 32
"""No model has more."""
TEXT_GUIDANCE_RANGE = (1, 10)
MAX_LOOP_BARS = 64
MAX_BEATS_PER_BAR = 16
LOOP_BPM_RANGE = (20, 400)
