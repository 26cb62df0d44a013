"""Exports generations as a session for DAWs: a folder with the audio and a file for each DAW."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

import grpc
import grpc.aio

from dgx_music.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from dgx_music.export.v1.export_pb2 import GetBeatGridRequest
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_COMPLETED,
    Generation,
    GenerationState,
    GetGenerationRequest,
)
from gateway.daw.ardour_session import ArdourWriter
from gateway.daw.beat_grids import exact_grid, heard_grid
from gateway.daw.dawproject_file import write_dawproject
from gateway.daw.midi_parts import require_mido
from gateway.daw.reaper_project import write_reaper
from gateway.daw.session_builder import Take, build_session, name_takes
from gateway.daw.session_model import AudioFile, DawSession
from gateway.daw.session_progress import ReportProgress, SessionProgress
from gateway.daw.take_files import fetch_audio, fetch_midi, fetch_stems
from gateway.daw.take_layout import Placement, TakeGrid
from gateway.daw.tempo_quantizing import choose_tempo, plan_stretch, quantize_take, require_stretcher
from gateway.file_names import file_name
from gateway.file_replacement import replacing
from gateway.timeouts import CALL_TIMEOUT_SECONDS, RENDER_TIMEOUT_SECONDS
from service_runtime.validation import check_uuid

SAMPLE_RATES_HZ = (44_100, 48_000, 88_200, 96_000, 176_400, 192_000)
"""What audio interfaces run at. 32 kHz, at which models generate, is none of them."""
DEFAULT_RATE_HZ = 48_000
MAX_TAKES = 64
LOW_CONFIDENCE = 0.5


class SessionFormat(StrEnum):
    """A format of sessions."""

    ARDOUR = "ardour"
    DAWPROJECT = "dawproject"
    REAPER = "reaper"


EXTENSIONS = {SessionFormat.ARDOUR: ".ardour", SessionFormat.DAWPROJECT: ".dawproject", SessionFormat.REAPER: ".rpp"}


@dataclass(frozen=True)
class SessionOptions:
    """What a session consists of."""

    name: str
    formats: Sequence[SessionFormat] = tuple(SessionFormat)
    sample_rate_hz: int = DEFAULT_RATE_HZ
    placement: Placement | None = None
    """None for LAYERS if all takes have the same tempo, otherwise SEQUENCE."""
    with_stems: bool = False
    with_midi: bool = False
    quantizes_tempo: bool = False
    """Whether the takes are stretched to one steady tempo."""
    overwrites: bool = False

    def check(self) -> None:
        """Raises InvalidArgument, and FailedPrecondition if something needed is not installed."""
        if self.sample_rate_hz not in SAMPLE_RATES_HZ:
            rates = ", ".join(map(str, SAMPLE_RATES_HZ))
            raise InvalidArgument("sample_rate_hz", f"must be one of {rates}, not {self.sample_rate_hz}")
        if not self.formats:
            raise InvalidArgument("format", "must name at least one of ardour, dawproject and reaper")
        if self.with_midi:
            require_mido()
        if self.quantizes_tempo:
            require_stretcher()


@dataclass(frozen=True)
class ExportedSession:
    """What was written."""

    files: Sequence[Path]
    """The file that each DAW opens."""
    session: DawSession
    placement: Placement
    notices: list[str] = field(default_factory=list)
    """What the user should know."""


async def export_session(
    music: gateway_pb2_grpc.MusicServiceAsyncStub,
    generation_ids: Sequence[str],
    folder: Path,
    options: SessionOptions,
    report: ReportProgress | None = None,
) -> ExportedSession:
    """Writes a session into a folder, which exists. The same generations and options give the same files.
    `report` is told how far it is.

    Raises AlreadyExists if a file of a DAW is there and may not be overwritten, InvalidArgument, FailedPrecondition if
    a generation has no file, DataLoss, OSError, and errors of gRPC.
    """
    options.check()
    name = file_name(options.name, "", "session")
    paths = {one: folder / f"{name}{EXTENSIONS[one]}" for one in SessionFormat if one in options.formats}
    if not options.overwrites and (taken := [path for path in paths.values() if path.exists()]):
        raise AlreadyExists(
            f"{taken[0]} already exists and may have been changed in the DAW; give another name, or replace it with "
            "--force",
            reason="FILE_EXISTS",
        )
    generations = await _get_generations(music, generation_ids)
    steps = SessionProgress(report, len(generations) * sum(_weights(options).values()))
    parent = f"interchange/{name}/" if SessionFormat.ARDOUR in options.formats else ""
    folders = f"{parent}audiofiles" if parent else "audio", f"{parent}midifiles" if parent else "midi"
    audio_folder, midi_folder = (folder / one for one in folders)
    audio_folder.mkdir(parents=True, exist_ok=True)
    if parent or options.with_midi:
        midi_folder.mkdir(parents=True, exist_ok=True)
    takes = [
        await _export_take(music, generation, take_name, options, audio_folder, midi_folder, steps)
        for generation, take_name in zip(generations, name_takes(generations), strict=True)
    ]
    _check_parts(takes)
    if options.quantizes_tempo:
        steps.begin("stretching to one tempo", _weights(options)["stretch"] * len(takes))
        await asyncio.to_thread(_quantize, takes, audio_folder, options.sample_rate_hz)
    session, placement = build_session(name, takes, options.sample_rate_hz, options.placement, folders)
    steps.begin("writing the session", _weights(options)["write"] * len(takes))
    await asyncio.to_thread(_write_files, session, paths, folder)
    notices = [f"{take.name}: {text}" for take in takes for text in take.notes]
    return ExportedSession(list(paths.values()), session, placement, notices)


def _weights(options: SessionOptions) -> dict[str, float]:
    """Returns about how long each step takes for one take, relative to its audio."""
    return {
        "audio": 1.0,
        "bars": 0.5,
        "stems": 6.0 * options.with_stems,
        "notes": 0.5 * options.with_midi,
        "stretch": (2.0 + 6.0 * options.with_stems) * options.quantizes_tempo,
        "write": 0.5 + 2.0 * options.with_stems,
    }


async def _get_generations(
    music: gateway_pb2_grpc.MusicServiceAsyncStub, generation_ids: Sequence[str]
) -> list[Generation]:
    identifiers = list(dict.fromkeys(check_uuid("id", one) for one in generation_ids))
    if not 1 <= len(identifiers) <= MAX_TAKES:
        raise InvalidArgument("id", f"must name 1 to {MAX_TAKES} generations, not {len(identifiers)}")
    generations = []
    for identifier in identifiers:
        response = await music.GetGeneration(GetGenerationRequest(id=identifier), timeout=CALL_TIMEOUT_SECONDS)
        generation = response.generation
        if generation.state != GENERATION_STATE_COMPLETED:
            state = GenerationState.Name(generation.state).removeprefix("GENERATION_STATE_")
            raise FailedPrecondition(
                f"generation {identifier} is {state} and has no file; export it once it is COMPLETED",
                reason="GENERATION_NOT_COMPLETED",
            )
        generations.append(generation)
    return generations


async def _export_take(
    music: gateway_pb2_grpc.MusicServiceAsyncStub,
    generation: Generation,
    name: str,
    options: SessionOptions,
    audio_folder: Path,
    midi_folder: Path,
    steps: SessionProgress,
) -> Take:
    weights = _weights(options)
    steps.begin(f"{name}: audio", weights["audio"])
    path = audio_folder / file_name(name, ".wav", "take")
    info = await fetch_audio(music, generation, options.sample_rate_hz, path)
    steps.begin(f"{name}: bars", weights["bars"])
    grid, notes = await _find_grid(music, generation)
    audio = AudioFile(path.name, info.frames, info.channels)
    sections = [(frame / info.sample_rate_hz, label) for frame, label in info.cues]
    take = Take(generation, name, audio, sections, grid, notes=notes)
    if options.with_stems:
        steps.begin(f"{name}: stems", weights["stems"])
        with _left_out(take, "stems"):
            take.stems = await fetch_stems(
                music,
                generation.id,
                options.sample_rate_hz,
                lambda stem: audio_folder / file_name(f"{name} - {stem}", ".wav", "stem"),
                steps.advance,
            )
    if options.with_midi:
        steps.begin(f"{name}: notes", weights["notes"])
        with _left_out(take, "notes"):
            whole, parts = await fetch_midi(music, generation.id)
            names = [file_name(f"{name} - {part.name.replace(': ', ', ')}", ".mid", "part") for part in parts]
            take.midi = list(zip(names, parts, strict=True))
            _write_bytes(midi_folder / file_name(name, ".mid", "take"), whole)
            for midi_name, part in take.midi:
                _write_bytes(midi_folder / midi_name, part.file)
    return take


@contextmanager
def _left_out(take: Take, parts: str) -> Iterator[None]:
    """Leaves out parts that a take does not have, as only the server knows: the rest of the session is still wanted."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        take.refusals[parts] = error
        take.notes.append(f"no {parts}: {error.details()}")


def _check_parts(takes: Sequence[Take]) -> None:
    """Raises what the server has said of parts that no take has."""
    for parts, refusal in takes[0].refusals.items():
        if all(parts in take.refusals for take in takes):
            raise refusal


async def _find_grid(
    music: gateway_pb2_grpc.MusicServiceAsyncStub, generation: Generation
) -> tuple[TakeGrid, list[str]]:
    """Returns the grid of a take, and what is not sure about it."""
    if (exact := exact_grid(generation)) is not None:
        return exact, []
    response = await music.GetBeatGrid(GetBeatGridRequest(generation_id=generation.id), timeout=RENDER_TIMEOUT_SECONDS)
    grid = heard_grid(response, generation)
    if not grid.is_known:
        return grid, [f"no tempo was found; its bars are those of {grid.bpm:g} BPM"]
    if response.beat_confidence < LOW_CONFIDENCE:
        return grid, [f"its beats are not sure (confidence {response.beat_confidence:.2f})"]
    if response.downbeat_confidence < LOW_CONFIDENCE:
        return grid, [f"which beat begins a bar is not sure (confidence {response.downbeat_confidence:.2f})"]
    return grid, []


def _quantize(takes: Sequence[Take], audio_folder: Path, rate_hz: int) -> None:
    seconds = [take.audio.frames / rate_hz for take in takes]
    bpm = choose_tempo([take.grid for take in takes], seconds)
    for take, length in zip(takes, seconds, strict=True):
        plan_stretch(take.name, take.grid, length, bpm)  # All are checked before one is stretched.
    for take in takes:
        quantize_take(take, audio_folder, rate_hz, bpm)


def _write_files(session: DawSession, paths: dict[SessionFormat, Path], folder: Path) -> None:
    audio = {
        track.audio.name: folder / session.audio_folder / track.audio.name for track in session.tracks if track.audio
    }
    for kind, path in paths.items():
        with replacing(path) as part:
            match kind:
                case SessionFormat.ARDOUR:
                    part.write_bytes(ArdourWriter(session).write())
                case SessionFormat.REAPER:
                    part.write_text(write_reaper(session), encoding="utf-8", newline="\n")
                case SessionFormat.DAWPROJECT:
                    write_dawproject(session, audio, part, version("dgx-music"))


def _write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(content)
