"""Codecs of all supported kinds, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.compression_checkpoints import CODEC_SHAPES, LONG_MEMORY, CodecShape, write_compression_checkpoint


@pytest.fixture(scope="module", params=CODEC_SHAPES)
def shape(request: pytest.FixtureRequest) -> CodecShape:
    return CODEC_SHAPES[request.param]


@pytest.fixture(scope="module")
def checkpoint(shape: CodecShape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_compression_checkpoint(tmp_path_factory.mktemp("codec"), shape, forget_bias=LONG_MEMORY)


@pytest.fixture(scope="module")
def codec(checkpoint: Path) -> Any:
    from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec

    return load_encodec(checkpoint)
