"""Takes that are stretched onto a steady grid."""

from __future__ import annotations

import numpy as np
import pytest

from dgx_music.errors import FailedPrecondition
from dgx_music.export.v1.export_pb2 import GetBeatGridResponse, TempoChange
from dgx_music.storage.v1.storage_pb2 import Generation
from export_service.pipeline.beat_grid_reading import read_beat_grid
from gateway.daw import tempo_quantizing
from gateway.daw.beat_grids import heard_grid
from gateway.daw.session_builder import Take
from gateway.daw.session_model import AudioFile
from gateway.daw.take_files import Stem
from gateway.daw.take_layout import TakeGrid
from gateway.daw.tempo_map import TempoPoint
from gateway.daw.tempo_quantizing import choose_tempo, measure_deviation, plan_stretch, quantize_take, require_stretcher
from gateway.daw.wav_file import WavWriter, read_samples, read_wav
from tests.support.click_tracks import click_track, drifting_beats
from tests.support.daw_sessions import write_tone

RATE_HZ = 44_100
SECONDS = 24.0


def steady(bpm, first_bar=0.0, confidence=1.0):
    return TakeGrid((TempoPoint(first_bar, 0, bpm),), 4, is_known=True, confidence=confidence)


def test_bars_go_to_the_grid():
    grid = TakeGrid((TempoPoint(0.5, 0, 100.0), TempoPoint(0.5 + 8 * 0.6, 8, 104.0)), 4, is_known=True, confidence=0.9)
    plan = plan_stretch("take", grid, 20.0, 102.0)
    bar = 4 * 60.0 / 102.0
    assert plan.move(0.0) == 0.0
    first = plan.move(0.5)
    assert first == pytest.approx(0.5 * 100.0 / 102.0)
    for number, seconds in enumerate([0.5, 2.9, 5.3, 5.3 + 240 / 104, 5.3 + 2 * 240 / 104]):
        assert plan.move(seconds) == pytest.approx(first + number * bar)
    assert plan.source[-1] == 20.0
    assert np.all(np.diff(plan.source) > 0.0)
    assert np.all(np.diff(plan.target) > 0.0)


def test_music_at_the_tempo_stays_as_it_is():
    assert plan_stretch("take", steady(120.0), 20.0, 120.02) is None


@pytest.mark.parametrize(
    ("grid", "seconds", "reason"),
    [
        (steady(120.0, confidence=0.4), 20.0, "BEATS_NOT_SURE"),
        (TakeGrid(), 20.0, "BEATS_NOT_SURE"),
        (steady(110.0), 20.0, "STRETCH_TOO_LARGE"),
        (steady(131.0), 20.0, "STRETCH_TOO_LARGE"),
        (steady(121.0), 901.0, "TAKE_TOO_LONG"),
    ],
)
def test_what_can_not_be_quantized_is_refused(grid, seconds, reason):
    with pytest.raises(FailedPrecondition, match=r"My take: .*--quantize-tempo") as caught:
        plan_stretch("My take", grid, seconds, 120.0)
    assert caught.value.reason == reason


def test_tempo_is_that_of_the_first_take_as_a_whole_number():
    drifting = TakeGrid((TempoPoint(0.0, 0, 118.0), TempoPoint(16 * 60 / 118, 16, 122.0)), 4, is_known=True)
    assert choose_tempo([TakeGrid(), drifting, steady(90.0)], [20.0, 16 * 60 / 118 + 16 * 60 / 122, 20.0]) == 120
    assert choose_tempo([steady(41.5)], [20.0]) == 41.5
    assert choose_tempo([TakeGrid()], [20.0]) == 120.0


def test_missing_package_is_named(monkeypatch):
    require_stretcher()
    monkeypatch.setattr(tempo_quantizing, "find_spec", lambda name: None)
    with pytest.raises(FailedPrecondition, match=r"dgx-music\[daw\]"):
        require_stretcher()


@pytest.mark.slow
def test_drifting_music_is_on_the_grid_afterwards(tmp_path):
    times = drifting_beats(lambda time: 120.0 + 4.0 * np.sin(time / 4.0), 0.4, SECONDS)
    path = tmp_path / "take.wav"
    with WavWriter(path, RATE_HZ, 1) as writer:
        writer.write(click_track(times, SECONDS, RATE_HZ))
    stem = write_tone(tmp_path / "stem.wav", SECONDS, 440.0, RATE_HZ)
    heard = read_beat_grid(path, 120.0)
    response = GetBeatGridResponse(
        beat_seconds=heard.beats,
        first_downbeat=heard.first_downbeat,
        beats_per_bar=heard.beats_per_bar,
        beat_confidence=heard.beat_confidence,
        tempo=[TempoChange(time_seconds=change.seconds, bpm=change.bpm) for change in heard.tempo],
    )
    frames = round(SECONDS * RATE_HZ)
    take = Take(
        Generation(), "take", AudioFile("take.wav", frames, 1), [(0.0, "A"), (times[16], "B")],
        heard_grid(response, Generation()), stems=[Stem("tone", stem, -1.0)],
    )  # fmt: skip
    assert measure_deviation(path, take.grid.first_bar_seconds, 120.0) > 0.05
    quantize_take(take, tmp_path, RATE_HZ, 120.0)

    (tempo,) = take.grid.tempi
    assert tempo.bpm == 120.0
    assert measure_deviation(path, tempo.seconds, 120.0) < 0.012
    again = read_beat_grid(path, 120.0)
    assert len(again.tempo) == 1
    assert again.tempo[0].bpm == pytest.approx(120.0, abs=0.05)
    beat = (take.sections[1][0] - tempo.seconds) / 0.5
    assert beat == pytest.approx(round(beat), abs=0.03)
    assert "120 BPM" in take.notes[0]

    stretched = take.stems[0].audio
    info = read_wav(tmp_path / "stem.wav")
    assert (info.frames, info.channels) == (stretched.frames, stretched.channels) == (take.audio.frames, 2)
    tone = read_samples(tmp_path / "stem.wav", info)[RATE_HZ : 21 * RATE_HZ, 0]
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone))))
    assert spectrum.argmax() / 20.0 == pytest.approx(440.0, abs=0.5)  # The pitch has not changed.
    assert np.abs(tone).max() < 0.6
    assert take.stems[0].gain_db == pytest.approx(-1.0)
