"""The score of a piece of the sketch: the notes that it plays, as General MIDI knows them."""

from __future__ import annotations

from typing import Final

from generation_service.models.notation.score import Score, ScoreNote, ScoreTrack
from generation_service.models.sketch.composition.form import BEATS_PER_BAR
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.piece import Piece
from generation_service.models.sketch.synthesis.general_midi import drum_key, program_of
from generation_service.models.sketch.synthesis.stem_bus import STEMS
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

_DRUM_GATE_FRAMES: Final = RATE_HZ // 16
"""A drum rings as long as it does; its note ends after this."""


def write_score(piece: Piece) -> Score:
    """Returns the notes that are heard. Each instrument of a stem has a track; textures have no notes."""
    tracks: dict[tuple[str, str], ScoreTrack] = {}
    for bar in piece.bars():
        for note in bar:
            if note.start < piece.total_frames:
                _add(tracks, note, piece.total_frames)
    for track in tracks.values():
        track.notes = _without_overlaps(track.notes)
    ordered = sorted(tracks.values(), key=lambda track: STEMS.index(track.stem))
    plan = piece.plan
    return Score(
        sample_rate_hz=RATE_HZ,
        total_frames=piece.total_frames,
        bpm=plan.bpm,
        beats_per_bar=BEATS_PER_BAR,
        tonic=plan.key.spelling,
        is_minor=plan.key.minor,
        sections=piece.sections,
        tracks=ordered,
    )


def _add(tracks: dict[tuple[str, str], ScoreTrack], note: Note, total_frames: int) -> None:
    is_drum = not note.pitches
    sound = "" if is_drum else note.sound
    track = tracks.get((note.stem, sound))
    if track is None:
        name = note.stem.capitalize() if is_drum else f"{note.stem.capitalize()}: {note.sound}"
        program = None if is_drum else program_of(note.sound)
        track = tracks[note.stem, sound] = ScoreTrack(name, note.stem, program, 0.0 if is_drum else note.pan)
    velocity = max(1, min(127, round(127 * note.velocity)))
    gate = _DRUM_GATE_FRAMES if is_drum else note.gate
    end = min(note.start + max(1, gate), total_frames)
    for pitch in note.pitches or (drum_key(note.sound),):
        track.notes.append(ScoreNote(note.start, end, pitch, velocity))


def _without_overlaps(notes: list[ScoreNote]) -> list[ScoreNote]:
    """The notes in order. One that still sounds when its pitch is played again ends there, because a note-off of MIDI
    names no note but a pitch."""
    ordered = sorted(notes, key=lambda note: (note.start_frame, note.pitch, -note.velocity))
    following: dict[int, int] = {}
    kept: list[ScoreNote] = []
    for note in reversed(ordered):
        next_start = following.get(note.pitch)
        if next_start == note.start_frame:
            continue  # Twice the same key at the same time.
        end = note.end_frame if next_start is None else min(note.end_frame, next_start)
        following[note.pitch] = note.start_frame
        kept.append(ScoreNote(note.start_frame, end, note.pitch, note.velocity))
    return kept[::-1]
