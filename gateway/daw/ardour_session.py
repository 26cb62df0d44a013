"""Writes a session as Ardour 7 keeps it, which later versions open too: an XML file beside the folder `interchange`.

Ardour has no published schema; these elements are those that it writes and needs. What it does not find, such as ports
and automation, it makes when it opens the session.
"""

from __future__ import annotations

from itertools import count
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from gateway.daw.session_model import DawSession, Track
from gateway.daw.tempo_map import TempoMap

VERSION = "7002"
SUPERCLOCKS_PER_SECOND = 282_240_000
"""Ardour's unit of time, a multiple of all sample rates."""
TICKS_PER_BEAT = 1920
OPAQUE = 0xFF


class ArdourWriter:
    """Writes one session. Ardour tells objects apart by numbers, which are given in the order of writing."""

    def __init__(self, session: DawSession) -> None:
        self._session = session
        self._numbers = count(1)
        self._sources = Element("Sources")
        self._regions = Element("Regions")
        self._playlists = Element("Playlists")
        self._routes = Element("Routes")

    def write(self) -> bytes:
        """Returns the content of the .ardour file."""
        session = self._session
        root = Element("Session", {
            "version": VERSION, "name": session.name, "sample-rate": str(session.sample_rate_hz),
            "session-range-is-free": "0", "name-counter": "1", "event-counter": "0", "vca-counter": "1",
        })  # fmt: skip
        SubElement(root, "ProgramVersion", {"created-with": "DGX Music", "modified-with": "DGX Music"})
        config = SubElement(root, "Config")
        for name, value in (("native-file-header-format", "WAVE"), ("native-file-data-format", "FormatInt24")):
            SubElement(config, "Option", name=name, value=value)
        metadata = SubElement(root, "Metadata")
        for name in ("title", "artist", "genre", "comment"):
            if text := session.details.get(name.title(), ""):
                SubElement(metadata, name.title() if name == "genre" else name).text = text
        root.extend([self._sources, self._regions])
        root.append(self._locations())
        SubElement(root, "Bundles")
        SubElement(root, "VCAManager")
        root.append(self._routes)
        root.append(self._playlists)
        for name in ("UnusedPlaylists", "RouteGroups"):
            SubElement(root, name)
        self._add_master()
        for order, track in enumerate(session.tracks, 1):
            self._add_track(order, track)
        root.append(_tempo_map(session.tempo_map))
        root.set("id-counter", str(next(self._numbers)))
        indent(root)
        return bytes(tostring(root, encoding="UTF-8", xml_declaration=True))

    def _id(self) -> str:
        return str(next(self._numbers))

    def _locations(self) -> Element:
        locations = Element("Locations")
        end = _audio_time(self._session.seconds)
        self._add_location(locations, "session", _audio_time(0.0), end, "IsSessionRange")
        for marker in self._session.markers:
            time = _audio_time(marker.seconds)
            self._add_location(locations, marker.name, time, time, "IsMark")
        return locations

    def _add_location(self, parent: Element, name: str, start: str, end: str, flags: str) -> None:
        SubElement(parent, "Location", {
            "id": self._id(), "name": name, "start": start, "end": end, "flags": flags, "locked": "0", "cue": "0",
        })  # fmt: skip

    def _add_master(self) -> None:
        route = self._add_route("Master", "audio", {"flags": "MasterOut,OrderSet", "order": "0", "color": "0"}, {})
        self._add_io(route, "Master", "Input", "audio", [f"Master/audio_in {side}" for side in (1, 2)], [])
        self._add_io(
            route, "Master", "Output", "audio", [f"Master/audio_out {side}" for side in (1, 2)],
            [f"system:playback_{side}" for side in (1, 2)],
        )  # fmt: skip
        self._add_amp(route, 0.0)
        self._add_outputs(route, "Master")

    def _add_track(self, order: int, track: Track) -> None:
        kind = "audio" if track.audio is not None else "midi"
        playlist = self._id()
        self._add_playlist(playlist, kind, track)
        flags = {"flags": f"{kind.title()}Track,OrderSet", "order": str(order), "color": str(_colour(track.colour))}
        mode = {"mode": "Normal"} if kind == "audio" else {"note-mode": "Sustained", "input-active": "1"}
        route = self._add_route(track.name, kind, flags, {f"{kind}-playlist": playlist, **mode})
        muted = str(int(track.is_muted))
        SubElement(
            route, "Controllable", {"name": "mute", "id": self._id(), "flags": "Toggle,RealTime", "value": muted}
        )
        SubElement(route, "MuteMaster", {"mute-point": "PreFader,PostFader,Listen,Main", "muted": muted})
        inputs = [f"{track.name}/{kind}_in {side}" for side in range(1, 2 if kind == "midi" else 3)]
        self._add_io(route, track.name, "Input", kind, inputs, [])
        if track.audio is not None:
            self._add_io(
                route, track.name, "Output", kind, [f"{track.name}/audio_out {side}" for side in (1, 2)],
                [f"Master/audio_in {side}" for side in (1, 2)],
            )  # fmt: skip
        else:
            self._add_io(route, track.name, "Output", kind, [f"{track.name}/midi_out 1"], [])
        self._add_processor(route, f"player:{track.name}", "diskreader")
        self._add_processor(route, f"recorder:{track.name}", "diskwriter")
        self._add_amp(route, track.gain_db)
        self._add_outputs(route, track.name)

    def _add_route(self, name: str, kind: str, presentation: dict[str, str], more: dict[str, str]) -> Element:
        route = SubElement(self._routes, "Route", {
            "version": VERSION, "id": self._id(), "name": name, "default-type": kind, "strict-io": "0", "active": "1",
            **more,
        })  # fmt: skip
        SubElement(route, "PresentationInfo", presentation)
        return route

    def _add_io(
        self, route: Element, name: str, direction: str, kind: str, ports: list[str], connections: list[str]
    ) -> None:
        element = SubElement(
            route, "IO", {"name": name, "id": self._id(), "direction": direction, "default-type": kind}
        )
        for number, port in enumerate(ports):
            child = SubElement(element, "Port", type=kind, name=port)
            if connections:
                SubElement(child, "Connection", other=connections[number])

    def _add_processor(self, route: Element, name: str, kind: str) -> Element:
        return SubElement(route, "Processor", id=self._id(), name=name, active="1", type=kind)

    def _add_amp(self, route: Element, gain_db: float) -> None:
        amp = self._add_processor(route, "Amp", "amp")
        gain = _number(10.0 ** (gain_db / 20.0))
        SubElement(amp, "Controllable", {"name": "gaincontrol", "id": self._id(), "flags": "GainLike", "value": gain})

    def _add_outputs(self, route: Element, name: str) -> None:
        outputs = self._add_processor(route, name, "main-outs")
        outputs.attrib.update({"own-input": "1", "own-output": "0", "output": name, "role": "Main"})

    def _add_playlist(self, playlist: str, kind: str, track: Track) -> None:
        element = SubElement(
            self._playlists, "Playlist",
            {"id": playlist, "name": track.name, "type": kind, "shared-with-ids": "", "frozen": "0"},
        )  # fmt: skip
        channels = track.audio.channels if track.audio is not None else 1
        sources = []
        for channel in range(channels):
            sources.append(self._id())
            name = track.audio.name if track.audio is not None else track.midi_name
            SubElement(self._sources, "Source", {
                "name": name, "type": kind, "flags": "", "id": sources[-1],
                "channel": str(channel), "origin": "", "gain": "1",
            })  # fmt: skip
        whole = self._region(kind, track, sources)
        whole.attrib.update({"whole-file": "1", "id": self._id()})
        self._regions.append(whole)
        placed = self._region(kind, track, sources)
        placed.set("id", self._id())
        element.append(placed)

    def _region(self, kind: str, track: Track, sources: list[str]) -> Element:
        if track.audio is not None:
            position = _audio_time(track.start_seconds)
            length = _audio_time(track.audio.frames / self._session.sample_rate_hz)
            start = _audio_time(0.0)
        else:
            position = _beat_time(self._session.tempo_map.beat_at(track.start_seconds))
            length, start = _beat_time(track.length_beats), _beat_time(0.0)
        region = Element("Region", {
            "name": track.name, "type": kind, "muted": "0", "opaque": "1", "locked": "0", "automatic": "0",
            "whole-file": "0", "import": "0", "external": "0", "sync-marked": "0", "hidden": "0",
            "position-locked": "0", "start": start, "length": f"{length}@{position}", "first-edit": "nothing",
            "layering-index": "0", "stretch": "1", "shift": "1",
        })  # fmt: skip
        if track.audio is not None:
            region.attrib.update({
                "envelope-active": "0", "default-fade-in": "1", "default-fade-out": "1", "fade-in-active": "1",
                "fade-out-active": "1", "scale-amplitude": "1", "channels": str(track.audio.channels),
            })  # fmt: skip
        for number, source in enumerate(sources):
            region.set(f"source-{number}", source)
            region.set(f"master-source-{number}", source)
        return region


def _tempo_map(tempo_map: TempoMap) -> Element:
    root = Element("TempoMap", {"superclocks-per-second": str(SUPERCLOCKS_PER_SECOND)})
    tempi = SubElement(root, "Tempos")
    for tempo in tempo_map.tempi:
        bar, beat = tempo_map.bar_at(tempo.beat)
        bpm = _number(tempo.bpm)
        SubElement(tempi, "Tempo", {
            "npm": bpm, "enpm": bpm, "note-type": "4", "type": "Tempo::Constant", "active": "1",
            "locked-to-meter": "0", "continuing": "0", "omega": "0",
            **_map_point(tempo.seconds, tempo.beat, bar, beat),
        })  # fmt: skip
    metres = SubElement(root, "Meters")
    for metre in tempo_map.metres:
        SubElement(metres, "Meter", {
            "note-value": "4", "divisions-per-bar": str(metre.beats_per_bar),
            **_map_point(metre.seconds, metre.beat, metre.bar, 0),
        })  # fmt: skip
    SubElement(root, "MusicTimes")
    return root


def _map_point(seconds: float, beat: int, bar: int, beat_in_bar: int) -> dict[str, str]:
    return {
        "sclock": str(round(seconds * SUPERCLOCKS_PER_SECOND)),
        "quarters": f"{beat}:0",
        "bbt": f"{bar + 1}|{beat_in_bar + 1}|0",
    }


def _audio_time(seconds: float) -> str:
    return f"a{round(seconds * SUPERCLOCKS_PER_SECOND)}"


def _beat_time(beats: float) -> str:
    return f"b{round(beats * TICKS_PER_BEAT)}"


def _colour(colour: str) -> int:
    return int(colour[1:], 16) << 8 | OPAQUE


def _number(value: float) -> str:
    return f"{value:.15g}"
