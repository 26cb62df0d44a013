"""The last step of an export and of a render: from measured samples to a file that is as loud as it is to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from export_service.audio_file import AudioFile
from export_service.decoding import in_sequence
from export_service.disk import synced_sha256
from export_service.envelope import Blocks
from export_service.levelling import level
from export_service.measurement import Measured, Measurement
from export_service.normalization import PROFILES, Aim, Normalization, NormalizationMode, Profile
from export_service.provenance import Mark
from service_runtime.output import FileFormat, LoudnessProfile, OutputOptions

FRAMES_AT_ONCE = 65_536
ENCODINGS_AT_MOST = 6
"""Of a lossy file: the first, and those that make room for what the encoder put on the peaks."""
LIMITED_ENCODINGS = 4
"""The limiter makes that room, which costs no loudness, until so many have passed the ceiling."""
ROOM_DB = 0.05
"""More than what the first encoding was over by, and twice as much each time after: an encoder's next peaks are not
quite the same."""


@dataclass(frozen=True)
class Finished:
    """A file that was written, and its figures."""

    format: FileFormat
    sample_rate_hz: int
    channels: int
    frames: int
    file_size_bytes: int
    file_sha256: str
    source: Measured
    """Of the samples at the file's sample rate and channel count, before the level was set."""
    file: Measured
    """Of the file; a lossy one's as decoded."""
    normalization: Normalization
    marks: tuple[Mark, ...]
    """Where it says that an AI made it."""


def aim_for(options: OutputOptions, default: Aim) -> Aim:
    """Where the options bring the level; `default` where they do not say."""
    target, ceiling = default.target_lufs, default.ceiling_dbtp
    if options.profile is LoudnessProfile.NONE:
        # An integer file would clip above full scale, and a lossy one in whatever plays it.
        target, ceiling = None, None if options.format is FileFormat.WAV_FLOAT else 0.0
    elif options.profile is not None:
        target = PROFILES[Profile(options.profile.value)].target_lufs
    elif options.target_lufs is not None:
        target = options.target_lufs
    return Aim(target, ceiling if options.ceiling_dbtp is None else options.ceiling_dbtp)


def finish(part: Path, audio: AudioFile, measurement: Measurement, aim: Aim, blocks: Blocks) -> Finished:
    """Writes `part` of the samples that `blocks` gives, which have all been measured, with an envelope.

    An encoder of a lossy format moves peaks. So its file is decoded and measured, and where it passes the ceiling
    written again: limited to so much less, then turned down by what is still over.
    Raises OSError; the part is then left for the caller to remove.
    """
    source = measurement.finish()
    levelled, turned_down_db = level(measurement, source, blocks, aim), 0.0
    lower_dbtp = aim.ceiling_dbtp or 0.0
    for encoding in range(1, ENCODINGS_AT_MOST + 1):
        audio.write(part, levelled.blocks(), levelled.gain_db - turned_down_db, levelled.measured)
        measured = _measured(part) if audio.form.lossy else levelled.measured
        over_db = _over(measured, aim)
        if not audio.form.lossy or over_db <= 0 or encoding == ENCODINGS_AT_MOST:
            break
        part.unlink()
        if encoding < LIMITED_ENCODINGS:
            lower_dbtp -= over_db + ROOM_DB
            levelled = level(measurement, source, blocks, replace(aim, ceiling_dbtp=lower_dbtp))
        else:
            turned_down_db += over_db + ROOM_DB * 2 ** (encoding - 1)
    audio.sign(part)
    return Finished(
        format=audio.format,
        sample_rate_hz=audio.sample_rate_hz,
        channels=audio.channels,
        frames=audio.frames,
        file_size_bytes=part.stat().st_size,
        file_sha256=synced_sha256(part),
        source=source,
        file=measured,
        normalization=_told(levelled.normalization, aim, turned_down_db),
        marks=audio.marks,
    )


def _told(normalization: Normalization, aim: Aim, turned_down_db: float) -> Normalization:
    """What was done, with what was done for the encoder's sake."""
    if not turned_down_db:
        return replace(normalization, aim=aim)
    why = f"turned down by {turned_down_db:.2f} dB, because the encoder raises the peaks"
    return replace(
        normalization,
        mode=NormalizationMode.LINEAR if normalization.mode is NormalizationMode.NONE else normalization.mode,
        aim=aim,
        gain_db=normalization.gain_db - turned_down_db,
        shortfall_lu=0.0 if aim.target_lufs is None else normalization.shortfall_lu + turned_down_db,
        reason="; ".join(filter(None, [normalization.reason, why])),
    )


def _over(measured: Measured, aim: Aim) -> float:
    """dB by which a peak passes the ceiling; negative where none does."""
    if measured.peak_db is None or aim.ceiling_dbtp is None:
        return -1.0
    return measured.peak_db - aim.ceiling_dbtp


def _measured(path: Path) -> Measured:
    with in_sequence(path) as file:
        measurement = Measurement(file.samplerate, file.channels)
        while len(block := file.read(FRAMES_AT_ONCE, dtype="float32", always_2d=True)):
            measurement.feed(block)
    return measurement.finish()
