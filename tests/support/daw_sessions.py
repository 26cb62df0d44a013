"""A DAW session with everything that a session can have, and its audio files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gateway.daw.session_model import AudioFile, DawSession, Marker, Note, Track
from gateway.daw.take_layout import Placement, TakeGrid, lay_out
from gateway.daw.tempo_map import TempoPoint
from gateway.daw.wav_file import WavWriter

RATE_HZ = 48_000
SECONDS = (8.0, 12.0)
HOSTILE_NAME = 'Ça <b>&"it\'s"</b> 音 \u202eRTL'


def write_tone(path: Path, seconds: float, hz: float, rate_hz: int = RATE_HZ, channels: int = 2) -> AudioFile:
    """Writes a sine at half of full scale, half as loud in the second channel."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    sine = 0.5 * np.sin(2 * np.pi * hz * time)
    path.parent.mkdir(parents=True, exist_ok=True)
    with WavWriter(path, rate_hz, channels) as writer:
        writer.write(np.stack([sine, 0.5 * sine], axis=1)[:, :channels].astype(np.float32))
    return AudioFile(path.name, len(time), channels)


def build_daw_session(folder: Path, midi: tuple[str, tuple[Note, ...]] | None = None) -> DawSession:
    """Returns a session of two takes one after the other, the first with a pick-up, the second in 3/4 and accelerating,
    a muted stem, and notes if `midi` has the name of a file and what is in it. Its audio is written to the folder.
    """
    name = folder.name
    audio = folder / "interchange" / name / "audiofiles"
    grids = [
        TakeGrid((TempoPoint(0.5, 0, 124.0),), 4, is_known=True),
        TakeGrid((TempoPoint(0.0, 0, 90.0), TempoPoint(8 * 60 / 90, 8, 95.0)), 3, is_known=True),
    ]
    layout = lay_out(grids, SECONDS, Placement.SEQUENCE)
    takes = [write_tone(audio / f"take {number}.wav", SECONDS[number], 220.0 * (number + 1)) for number in (0, 1)]
    stem = write_tone(audio / "bass.wav", SECONDS[0], 110.0, channels=1)
    tracks = [
        Track(HOSTILE_NAME, "#e4572e", layout.starts[0], takes[0]),
        Track("Bass", "#e4572e", layout.starts[0], stem, gain_db=-6.0, is_muted=True, is_part=True),
        Track("Second take", "#2e86ab", layout.starts[1], takes[1], gain_db=3.0),
    ]
    if midi is not None:
        tracks.append(Track("Notes", "#2e86ab", layout.starts[1], notes=midi[1], midi_name=midi[0], length_beats=6.0))
    return DawSession(
        name=name,
        sample_rate_hz=RATE_HZ,
        seconds=layout.starts[1] + SECONDS[1],
        tempo_map=layout.tempo_map,
        tracks=tracks,
        markers=[Marker(0.0, 'Intro "A" <1>', "#5b8e7d"), Marker(layout.starts[1], "Verse", "#bc4b51")],
        comment="Take: 124 BPM, A minor\nSecond line",
        audio_folder=f"interchange/{name}/audiofiles",
        midi_folder=f"interchange/{name}/midifiles",
        details={"Title": HOSTILE_NAME, "Genre": "house", "Comment": "Generated with DGX Music."},
    )


def steady(session: DawSession) -> DawSession:
    """Returns the session with its first tempo and metre only."""
    tempo_map = session.tempo_map
    return replace(
        session, tempo_map=replace(tempo_map, tempi=tempo_map.tempi[:1], metres=tempo_map.metres[:1]), markers=()
    )
