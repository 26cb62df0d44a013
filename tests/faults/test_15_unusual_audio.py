"""Fault 15: audio without a loudness, extremely loud audio, and data that is not audio. One server handles every kind
and continues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from dgx_music.export.v1 import export_pb2
from tests.support.export_client import (
    RATE_HZ,
    ExportClient,
    build_header,
    build_requests,
    music,
    new_id,
    raises_rpc_error,
)
from tests.support.export_servers import run_export_process

Samples = npt.NDArray[np.float32]
Check = Callable[[export_pb2.ExportResponse, Samples, Samples], None]
"""Checks the response, given the samples sent and those in the file."""
STEP = 2**-23


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[ExportClient]:
    async with run_export_process(tmp_path) as (_, client):
        yield client


def keeps_level(why: str) -> Check:
    def check(response: export_pb2.ExportResponse, sent: Samples, file: Samples) -> None:
        assert response.normalization.mode == export_pb2.NORMALIZATION_MODE_NONE
        assert why in response.normalization.reason
        assert not response.source.HasField("integrated_lufs")
        np.testing.assert_allclose(file, sent, atol=STEP)

    return check


def is_normalized_down(response: export_pb2.ExportResponse, sent: Samples, file: Samples) -> None:
    assert response.normalization.gain_db < 0
    assert response.file.integrated_lufs == pytest.approx(-16, abs=0.1)
    assert np.abs(file).max() <= 10 ** (-1 / 20)


def is_reduced_to_ceiling(response: export_pb2.ExportResponse, sent: Samples, file: Samples) -> None:
    """The audio is too short for a loudness, but would clip."""
    assert "too short" in response.normalization.reason
    assert response.file.true_peak_dbtp == pytest.approx(-1, abs=0.01)
    assert np.abs(file).max() <= 10 ** (-1 / 20)


def is_finite_and_below_ceiling(response: export_pb2.ExportResponse, sent: Samples, file: Samples) -> None:
    """K-weighting removes DC except for its onset, so the loudness is nearly nothing and the gain must be limited."""
    assert np.isfinite(file).all()
    assert response.file.true_peak_dbtp <= -1
    assert np.abs(file).max() <= 10 ** (-1 / 20)
    assert response.normalization.largest_reduction_db <= 6


def constant(seconds: float, level: float) -> Samples:
    return np.full((round(seconds * RATE_HZ), 2), level, dtype=np.float32)


async def test_unusual_audio_is_exported(client: ExportClient) -> None:
    cases: dict[str, tuple[Samples, Check]] = {
        "digital silence": (constant(2, 0.0), keeps_level("too quiet")),
        "next to silence": (music(2, level=1e-6), keeps_level("too quiet")),
        "100 ms": (music(0.1), keeps_level("too short")),
        "100 ms over full scale": (music(0.1, level=20), is_reduced_to_ceiling),
        "over full scale": (music(2, level=20), is_normalized_down),
        "absurdly loud": (music(2, level=1e30), is_normalized_down),
        "DC": (constant(2, 0.5), is_finite_and_below_ceiling),
        "DC over full scale": (constant(2, 1.5), is_finite_and_below_ceiling),
        "one frame": (constant(1 / RATE_HZ, 0.5), keeps_level("too short")),
    }
    for case, (sent, check) in cases.items():
        response = await client.export(new_id(), sent)
        file, rate = soundfile.read(client.data_dir / response.file_path, dtype="float32", always_2d=True)
        assert (rate, file.shape, response.frames) == (RATE_HZ, sent.shape, len(sent)), case
        check(response, sent, file)


async def test_invalid_audio_is_rejected_and_server_continues(client: ExportClient) -> None:
    samples = music(1)
    samples[777, 1] = np.nan
    async with raises_rpc_error("INVALID_ARGUMENT", field="chunk.pcm", match="frame 777, channel 1 is nan"):
        await client.send(build_requests(new_id(), samples)[:2], close=False)
    async with raises_rpc_error("INVALID_ARGUMENT", field="header.audio.channels", match="1 or 2, not 9"):
        await client.send([build_header(new_id(), samples, channels=9)], close=False)
    async with raises_rpc_error("INVALID_ARGUMENT", field="chunk", match="no samples"):
        await client.send(build_requests(new_id(), samples[:0]))
    assert client.files() == set()
    await client.export(new_id(), music(1))
