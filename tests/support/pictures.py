"""Cover pictures of any size."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def png(width: int = 64, height: int = 48) -> bytes:
    """Returns a picture in PNG."""
    return _encode(width, height, "PNG")


def jpeg(width: int = 64, height: int = 48, **options: object) -> bytes:
    """Returns a picture in JPEG."""
    return _encode(width, height, "JPEG", **options)


def _encode(width: int, height: int, form: str, **options: object) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()
