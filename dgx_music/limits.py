"""The limits of the public contract, for clients and servers. The .proto files state the same limits."""

from __future__ import annotations

MAX_PROMPT_CHARACTERS = 10_000
MAX_SEED = 2**63 - 1
"""The minimum is 0."""
MIN_DURATION_SECONDS = 0.1
"""Minimum length of a generation; the maximum depends on the model."""

MAX_TEMPERATURE = 10.0
"""The minimum is exclusive: temperature must be above 0."""
SAMPLING_RANGES = {"top_k": (0, 2048), "top_p": (0, 1), "guidance_scale": (0, 20)}
"""Sampling parameter other than temperature → its minimum and maximum, both inclusive."""

MIN_CONTINUATION_SECONDS, MAX_CONTINUATION_SECONDS = 0.5, 25.0
DEFAULT_CONTINUATION_SECONDS = 10.0

MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 8_000, 192_000
MAX_CHANNELS = 2
MIN_CLIP_SECONDS = 0.1
MIN_TARGET_LUFS, MIN_CEILING_DBTP = -70.0, -20.0
"""The maximum of both is 0."""

MAX_CHUNK_BYTES = 65_536
"""Maximum size of `AudioChunk.pcm`."""
