"""Writes a session as a project of REAPER: a text of nested blocks.

There is no published grammar; the blocks are those that REAPER 7 writes and reads, documented in its state chunks
(https://github.com/ReaTeam/Doc/blob/master/State%20Chunk%20Definitions).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from gateway.daw.session_model import DawSession, Track

NAMESPACE = uuid.UUID("5f2a2f1e-55a4-4d55-8a3c-8f1a6a0c7f6e")
"""Ids come from names, so that the same session gives the same file."""
COLOUR_IS_SET = 0x1000000
LINEAR, SQUARE = 0, 1
"""Shapes of a tempo envelope: the tempo glides, or stays until the next point."""


def write_reaper(session: DawSession) -> str:
    """Returns the content of a .rpp file."""
    return "\n".join(_project(session)) + "\n"


def _project(session: DawSession) -> Iterator[str]:
    first_tempo, first_metre = session.tempo_map.tempi[0], session.tempo_map.metres[0]
    yield '<REAPER_PROJECT 0.1 "7.0/linux-x86_64" 0'
    if session.comment:
        yield "  <NOTES 0 2"
        yield from (f"    |{line}" for line in session.comment.splitlines())
        yield "  >"
    yield f"  SAMPLERATE {session.sample_rate_hz} 1 0"
    yield f"  TEMPO {_number(first_tempo.bpm)} {first_metre.beats_per_bar} 4"
    yield "  TIMEMODE 1 5 -1 30 0 0 -1"  # The ruler shows bars and beats.
    yield "  GRID 3199 8 1 8 1 0 0 0"
    for number, marker in enumerate(session.markers, 1):
        yield (
            f"  MARKER {number} {_number(marker.seconds)} {_quoted(marker.name)} 0 "
            f"{_colour(marker.colour)} 1 R {_id(session, 'marker', number)}"
        )
    if len(session.tempo_map.tempi) > 1 or len(session.tempo_map.metres) > 1:
        yield from _tempo_envelope(session)
    for number, track in enumerate(session.tracks):
        yield from _track(session, number, track)
    yield ">"


def _tempo_envelope(session: DawSession) -> Iterator[str]:
    metres = {point.beat: point.beats_per_bar for point in session.tempo_map.metres}
    yield "  <TEMPOENVEX"
    yield "    ACT 1 -1"
    yield "    VIS 1 0 1"
    for point in session.tempo_map.tempi:
        # A metre is its denominator times 65536 plus its numerator, and 0 leaves it as it is.
        metre = (4 << 16) + metres[point.beat] if point.beat in metres else 0
        yield f"    PT {_number(point.seconds)} {_number(point.bpm)} {SQUARE} {metre} 0 1"
    yield "  >"


def _track(session: DawSession, number: int, track: Track) -> Iterator[str]:
    gain = 10.0 ** (track.gain_db / 20.0)
    yield f"  <TRACK {_id(session, 'track', number)}"
    yield f"    NAME {_quoted(track.name)}"
    yield f"    PEAKCOL {_colour(track.colour)}"
    yield f"    VOLPAN {_number(gain)} 0 -1 -1 1"
    yield f"    MUTESOLO {int(track.is_muted)} 0 0"
    yield "    NCHAN 2"
    yield f"    TRACKID {_id(session, 'track', number)}"
    yield "    <ITEM"
    yield f"      POSITION {_number(track.start_seconds)}"
    yield "      SNAPOFFS 0"
    yield f"      LENGTH {_number(_length(session, track))}"
    yield "      LOOP 0"
    yield "      ALLTAKES 0"
    yield "      FADEIN 1 0 0 1 0 0 0"
    yield "      FADEOUT 1 0 0 1 0 0 0"
    yield "      MUTE 0 0"
    yield f"      IGUID {_id(session, 'item', number)}"
    yield f"      IID {number + 1}"
    yield f"      NAME {_quoted(track.name)}"
    yield "      VOLPAN 1 0 1 -1"
    yield "      SOFFS 0"
    yield "      PLAYRATE 1 1 0 -1 0 0.0025"
    yield "      CHANMODE 0"
    yield f"      GUID {_id(session, 'take', number)}"
    if track.audio is not None:
        yield "      <SOURCE WAVE"
        yield f"        FILE {_quoted(f'{session.audio_folder}/{track.audio.name}')}"
    else:
        yield "      <SOURCE MIDI"
        yield f"        FILE {_quoted(f'{session.midi_folder}/{track.midi_name}')}"
    yield "      >"
    yield "    >"
    yield "  >"


def _length(session: DawSession, track: Track) -> float:
    if track.audio is not None:
        return track.audio.frames / session.sample_rate_hz
    start_beat = session.tempo_map.beat_at(track.start_seconds)
    return session.tempo_map.seconds_at(start_beat + track.length_beats) - track.start_seconds


def _number(value: float) -> str:
    return f"{value:.12f}".rstrip("0").rstrip(".")


def _quoted(text: str) -> str:
    """Returns a text in the quotation marks that it does not contain, as REAPER does it."""
    text = " ".join(text.split())
    for mark in ('"', "'", "`"):
        if mark not in text:
            return f"{mark}{text}{mark}"
    return "`" + text.replace("`", "'") + "`"


def _colour(colour: str) -> int:
    """Returns a colour as Windows has it, with red in the lowest byte."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return COLOUR_IS_SET | blue << 16 | green << 8 | red


def _id(session: DawSession, kind: str, number: int) -> str:
    return "{" + str(uuid.uuid5(NAMESPACE, f"{session.name} {kind} {number}")).upper() + "}"
