"""How much audio is processed at a time."""

from __future__ import annotations

BLOCK_FRAMES = 65_536
"""Frames that are read, processed or written at a time: 2 s at 32 kHz, 512 KiB of float32 stereo."""
