"""Notes and stems through the Python client."""

from __future__ import annotations

import io
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from dgx_music import AsyncClient, Client
from dgx_music.errors import FailedPrecondition


def test_stems_add_up_and_midi_is_read_back(client: Client, tmp_path: Path) -> None:
    music = client.generate("funk at 105 BPM", model="sketch", duration=4, seed=3)
    assert mido.MidiFile(file=io.BytesIO(music.midi())).length == pytest.approx(4.0, abs=0.01)
    stems = music.stems(tmp_path / "new" / "folder")
    assert list(stems.paths) == list(stems.header.names)
    samples = [soundfile.read(path, dtype="float32")[0] for path in stems.paths.values()]
    assert {part.shape for part in samples} == {(4 * 32_000, 2)}
    # The finished file is their sum at another level, without the limiter.
    mix = np.sum(samples, axis=0) * 10 ** (stems.header.file_gain_db / 20)
    assert np.corrcoef(mix[:, 0], music.audio()[:, 0])[0, 1] > 0.999


async def test_what_is_not_completed_has_no_parts(async_client: AsyncClient, tmp_path: Path) -> None:
    music = await async_client.submit("ambient", model="sketch", duration=3600)
    with pytest.raises(FailedPrecondition, match="COMPLETED"):
        await music.midi()
    with pytest.raises(FailedPrecondition, match="COMPLETED"):
        await music.stems(tmp_path)
    await music.cancel()
    assert not list(tmp_path.iterdir())
