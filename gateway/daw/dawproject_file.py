"""Writes a session as a DAWproject, the open exchange format of Bitwig Studio, Studio One, Cubase and others.

The format is at https://github.com/bitwig/dawproject: a ZIP archive of project.xml, metadata.xml and the audio files.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from gateway.daw.session_model import DawSession, Track

VERSION = "1.0"
APPLICATION = "DGX Music"
MIN_BPM, MAX_BPM = 20.0, 666.0
MAX_VOLUME = 2.0
"""Largest linear gain of a channel: 6 dB."""
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""Of each file in the archive, so that the same session gives the same bytes."""
DETAILS = ("Title", "Artist", "Genre", "Copyright", "Website", "Comment")
"""What metadata.xml may hold of `DawSession.details`, in the order of its schema."""


def write_dawproject(session: DawSession, audio: Mapping[str, Path], path: Path, version: str) -> None:
    """Writes the archive. `audio` has the path of each audio file by its name, and `version` is that of DGX Music."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry("project.xml", zipfile.ZIP_DEFLATED), _xml(build_project(session, version)))
        archive.writestr(_entry("metadata.xml", zipfile.ZIP_DEFLATED), _xml(_metadata(session)))
        for name, source in sorted(audio.items()):
            entry = _entry(f"audio/{name}", zipfile.ZIP_STORED)
            entry.file_size = os.path.getsize(source)
            with open(source, "rb") as file, archive.open(entry, "w", force_zip64=entry.file_size > 1 << 30) as target:
                while data := file.read(1 << 20):
                    target.write(data)


def build_project(session: DawSession, version: str) -> Element:
    """Returns the root element of project.xml. Times are in beats, but within audio in seconds."""
    root = Element("Project", version=VERSION)
    SubElement(root, "Application", name=APPLICATION, version=version)
    transport = SubElement(root, "Transport")
    tempo, metre = session.tempo_map.tempi[0], session.tempo_map.metres[0]
    SubElement(
        transport, "Tempo", id="tempo", name="Tempo", unit="bpm",
        min=_number(MIN_BPM), max=_number(MAX_BPM), value=_number(tempo.bpm),
    )  # fmt: skip
    SubElement(transport, "TimeSignature", id="metre", numerator=str(metre.beats_per_bar), denominator="4")
    structure = SubElement(root, "Structure")
    for number, track in enumerate(session.tracks):
        _add_track(structure, f"track{number}", track)
    master = SubElement(structure, "Track", id="master", name="Master", contentType="audio notes", loaded="true")
    channel = SubElement(master, "Channel", id="masterChannel", role="master", audioChannels="2", solo="false")
    SubElement(channel, "Volume", name="Volume", unit="linear", min="0", max=_number(MAX_VOLUME), value="1")
    _add_arrangement(root, session)
    SubElement(root, "Scenes")
    return root


def _add_track(parent: Element, identifier: str, track: Track) -> None:
    content = "audio" if track.audio is not None else "notes"
    element = SubElement(
        parent, "Track", id=identifier, name=track.name, color=track.colour, contentType=content, loaded="true"
    )
    channel = SubElement(
        element, "Channel", id=f"{identifier}Channel", role="regular", audioChannels="2", solo="false",
        destination="masterChannel",
    )  # fmt: skip
    SubElement(channel, "Mute", id=f"{identifier}Mute", name="Mute", value=str(track.is_muted).lower())
    SubElement(channel, "Pan", id=f"{identifier}Pan", name="Pan", unit="normalized", min="0", max="1", value="0.5")
    volume = min(10.0 ** (track.gain_db / 20.0), MAX_VOLUME)
    SubElement(
        channel, "Volume", id=f"{identifier}Volume", name="Volume", unit="linear",
        min="0", max=_number(MAX_VOLUME), value=_number(volume),
    )  # fmt: skip


def _add_arrangement(root: Element, session: DawSession) -> None:
    tempo_map = session.tempo_map
    arrangement = SubElement(root, "Arrangement", id="arrangement")
    lanes = SubElement(arrangement, "Lanes", id="lanes", timeUnit="beats")
    for number, track in enumerate(session.tracks):
        lane = SubElement(lanes, "Lanes", id=f"lane{number}", track=f"track{number}")
        clips = SubElement(lane, "Clips", id=f"clips{number}")
        if track.audio is not None:
            _add_audio_clip(clips, session, track)
        else:
            _add_note_clip(clips, session, track)
    if session.markers:
        markers = SubElement(arrangement, "Markers", id="markers", timeUnit="beats")
        for marker in session.markers:
            time = _number(tempo_map.beat_at(marker.seconds))
            SubElement(markers, "Marker", time=time, name=marker.name, color=marker.colour)
    if len(tempo_map.tempi) > 1:
        points = SubElement(arrangement, "TempoAutomation", id="tempi", unit="bpm", timeUnit="beats")
        SubElement(points, "Target", parameter="tempo")
        for tempo in tempo_map.tempi:
            SubElement(points, "RealPoint", time=str(tempo.beat), value=_number(tempo.bpm), interpolation="hold")
    if len(tempo_map.metres) > 1:
        points = SubElement(arrangement, "TimeSignatureAutomation", id="metres", timeUnit="beats")
        SubElement(points, "Target", parameter="metre")
        for metre in tempo_map.metres:
            SubElement(
                points, "TimeSignaturePoint",
                time=str(metre.beat), numerator=str(metre.beats_per_bar), denominator="4",
            )  # fmt: skip


def _add_audio_clip(clips: Element, session: DawSession, track: Track) -> None:
    """Adds the clip in seconds within beats: warp markers at each change of tempo keep the audio as it is."""
    assert track.audio is not None
    seconds = track.audio.frames / session.sample_rate_hz
    start = session.tempo_map.beat_at(track.start_seconds)
    length = session.tempo_map.beat_at(track.start_seconds + seconds) - start
    clip = SubElement(
        clips, "Clip", name=track.name, color=track.colour, time=_number(start), duration=_number(length),
        contentTimeUnit="beats", playStart="0",
    )  # fmt: skip
    warps = SubElement(clip, "Warps", contentTimeUnit="seconds", timeUnit="beats")
    audio = SubElement(
        warps, "Audio", algorithm="raw", channels=str(track.audio.channels), sampleRate=str(session.sample_rate_hz),
        duration=_number(seconds),
    )  # fmt: skip
    SubElement(audio, "File", path=f"audio/{track.audio.name}", external="false")
    inside = [
        (tempo.beat - start, tempo.seconds - track.start_seconds)
        for tempo in session.tempo_map.tempi
        if start < tempo.beat < start + length
    ]
    for beats, content_seconds in [(0.0, 0.0), *inside, (length, seconds)]:
        SubElement(warps, "Warp", time=_number(beats), contentTime=_number(content_seconds))


def _add_note_clip(clips: Element, session: DawSession, track: Track) -> None:
    start = session.tempo_map.beat_at(track.start_seconds)
    clip = SubElement(
        clips, "Clip", name=track.name, color=track.colour, time=_number(start),
        duration=_number(track.length_beats), contentTimeUnit="beats", playStart="0",
    )  # fmt: skip
    notes = SubElement(clip, "Notes")
    for note in track.notes:
        velocity = _number(note.velocity / 127.0)
        SubElement(
            notes, "Note", time=_number(note.start_beats), duration=_number(note.length_beats),
            channel=str(note.channel), key=str(note.pitch), vel=velocity, rel=velocity,
        )  # fmt: skip


def _metadata(session: DawSession) -> Element:
    root = Element("MetaData")
    for name in DETAILS:
        if session.details.get(name):
            SubElement(root, name).text = session.details[name]
    return root


def _xml(root: Element) -> bytes:
    indent(root)
    return bytes(tostring(root, encoding="UTF-8", xml_declaration=True))


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, ZIP_TIME)
    entry.compress_type = compression
    entry.external_attr = 0o644 << 16
    return entry


def _number(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")
