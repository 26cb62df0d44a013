"""How much audio is worked on at once."""

from __future__ import annotations

BLOCK_FRAMES = 65_536
"""Frames read, processed or written at once: 2 s at 32 kHz, 512 KiB of float32 stereo."""
