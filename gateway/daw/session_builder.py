"""Builds the session from its takes: names, colours, sections, and which tracks are heard at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import grpc.aio

from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.daw.midi_parts import MidiPart
from gateway.daw.session_model import AudioFile, DawSession, Marker, Track
from gateway.daw.take_files import Stem
from gateway.daw.take_layout import Layout, Placement, TakeGrid, choose_placement, lay_out
from gateway.daw.tempo_map import TempoMap
from gateway.file_names import collision_key, cut, file_name
from service_runtime.printable_text import make_printable

MAX_NAME_LETTERS = 48
SNAP_SECONDS = 0.01
"""Sections are written in frames, and their beats are exact."""
TRACK_COLOURS = ("#e4572e", "#2e86ab", "#76b041", "#f3a712", "#8f5fbf", "#17b890", "#d64b8a", "#7d8597")
SECTION_COLOURS = ("#5b8e7d", "#bc4b51", "#5b6ee1", "#c98f2b", "#8cb369", "#8d6a9f")


@dataclass
class Take:
    """A generation with its files in the session's folder."""

    generation: Generation
    name: str
    audio: AudioFile
    sections: Sequence[tuple[float, str]]
    """Where each section begins, in seconds from the start of the file, and its name."""
    grid: TakeGrid
    stems: Sequence[Stem] = ()
    midi: Sequence[tuple[str, MidiPart]] = ()
    """The name of the file of each part, and the part."""
    gain_db: float = 0.0
    """What makes up for a file that is quieter than the take."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about it."""
    refusals: dict[str, grpc.aio.AioRpcError] = field(default_factory=dict)
    """Why it has none of the parts that were asked for."""


def name_takes(generations: Sequence[Generation]) -> list[str]:
    """Returns names that are different, legal on every system, and short enough for a track's header."""
    names: list[str] = []
    taken: set[str] = set()
    for generation in generations:
        text = f"{cut(' '.join(generation.prompt.split()), MAX_NAME_LETTERS)} {generation.seed}"
        number = 1
        while collision_key(name := file_name(text, "", f"take {generation.seed}", number)) in taken:
            number += 1
        taken.add(collision_key(name))
        names.append(name)
    return names


def build_session(
    name: str, takes: Sequence[Take], rate_hz: int, placement: Placement | None, folders: tuple[str, str]
) -> tuple[DawSession, Placement]:
    """Returns the session and where the takes are in it. `folders` are those of the audio and of the MIDI files."""
    placement = placement or choose_placement([take.grid for take in takes])
    lengths = [take.audio.frames / rate_hz for take in takes]
    layout = lay_out([take.grid for take in takes], lengths, placement)
    tracks: list[Track] = []
    for number, (take, start) in enumerate(zip(takes, layout.starts, strict=True)):
        colour = TRACK_COLOURS[number % len(TRACK_COLOURS)]
        is_muted = placement is Placement.LAYERS and number > 0
        tracks.append(Track(take.name, colour, start, take.audio, gain_db=take.gain_db, is_muted=is_muted))
        tracks += [
            Track(
                _part_name(take, stem.name),
                colour,
                start,
                stem.audio,
                gain_db=stem.gain_db,
                is_muted=True,
                is_part=True,
            )
            for stem in take.stems
        ]
        tracks += [
            Track(
                _part_name(take, f"{part.name} MIDI"),
                colour,
                start,
                notes=part.notes,
                midi_name=midi_name,
                length_beats=part.length_beats,
                is_muted=True,
                is_part=True,
            )
            for midi_name, part in take.midi
        ]
    session = DawSession(
        name=name,
        sample_rate_hz=rate_hz,
        seconds=max(start + length for start, length in zip(layout.starts, lengths, strict=True)),
        tempo_map=layout.tempo_map,
        tracks=_with_unique_names(tracks),
        markers=_markers(takes, layout, placement),
        comment="\n".join(_describe(take) for take in takes),
        audio_folder=folders[0],
        midi_folder=folders[1],
        details=_details(name, takes),
    )
    return session, placement


def _part_name(take: Take, part: str) -> str:
    """Returns the part before the take: in the narrow header of a track, the end of a name is not seen."""
    return file_name(f"{part.replace(': ', ', ')} - {cut(take.name, 32).rstrip()}", "", part)


def _with_unique_names(tracks: Sequence[Track]) -> list[Track]:
    """Returns the tracks, those with a name that another has already with a number: DAWs tell ports apart by names."""
    taken: set[str] = set()
    unique = []
    for track in tracks:
        number, name = 1, track.name
        while collision_key(name) in taken:
            number += 1
            name = file_name(track.name, "", "track", number)
        taken.add(collision_key(name))
        unique.append(replace(track, name=name))
    return unique


def _markers(takes: Sequence[Take], layout: Layout, placement: Placement) -> list[Marker]:
    """Returns the sections: of all takes if they follow one another, otherwise of the first, which is heard."""
    shown = list(zip(takes, layout.starts, strict=True))[: 1 if placement is Placement.LAYERS else None]
    colours: dict[str, str] = {}
    markers = []
    for take, start in shown:
        sections = list(take.sections) or [(0.0, "")]
        if sections[0][0] > 0.0:
            sections.insert(0, (0.0, ""))
        for seconds, section in sections:
            colour = colours.setdefault(section, SECTION_COLOURS[len(colours) % len(SECTION_COLOURS)])
            text = section or take.name
            if placement is Placement.SEQUENCE and len(takes) > 1 and section and seconds == sections[0][0]:
                text = f"{take.name}: {section}"
            markers.append(Marker(_on_beat(layout.tempo_map, start + seconds), make_printable(text), colour))
    return markers


def _on_beat(tempo_map: TempoMap, seconds: float) -> float:
    """Returns the time of the beat that is within SNAP_SECONDS of a time, or else the time itself."""
    beat = tempo_map.seconds_at(round(tempo_map.beat_at(seconds)))
    return beat if abs(beat - seconds) <= SNAP_SECONDS else seconds


def _describe(take: Take) -> str:
    facts = [f"{take.grid.bpm:.4g} BPM"] if take.grid.is_known else ["tempo unknown"]
    if key := _text(take.generation, "key", "measured_key"):
        facts.append(key)
    facts.append(f"model {take.generation.model_name} {take.generation.model_version}".rstrip())
    facts.append(f"seed {take.generation.seed}")
    facts.append(f"generation {take.generation.id}")
    return "\n".join(make_printable(f"{take.name}: {text}") for text in (", ".join(facts), *take.notes))


def _details(name: str, takes: Sequence[Take]) -> dict[str, str]:
    genres = sorted({text for take in takes if (text := _text(take.generation, "genre"))})
    disclosure = "Generated with DGX Music."
    return {
        "Title": make_printable(name),
        "Genre": make_printable(genres[0]) if len(genres) == 1 else "",
        "Comment": "\n".join([disclosure, *(_describe(take) for take in takes)]),
    }


def _text(generation: Generation, *names: str) -> str:
    values = (generation.metadata.fields[name].string_value for name in names if name in generation.metadata.fields)
    return next(filter(None, values), "")
