"""The last step of an export and of a render: from measured samples to a file that is as loud as it is to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from export_service.audio_file import AudioFile
from export_service.decoding import in_sequence
from export_service.disk import sha256_of
from export_service.envelope import Blocks
from export_service.levelling import level
from export_service.measurement import Measured, Measurement
from export_service.normalization import PROFILES, Aim, Normalization, Profile
from service_runtime.output import FileFormat, LoudnessProfile, OutputOptions

FRAMES_AT_ONCE = 65_536
ENCODINGS_AT_MOST = 3
"""Of a lossy file: the first, and those that make room for what the encoder put on the peaks."""
ROOM_DB = 0.05
"""More than what the last encoding was over by: the next one's peaks are not quite the same."""


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
    written again under a ceiling so much lower. Raises OSError; the part is then left for the caller to remove.
    """
    source, inside = measurement.finish(), aim
    for encodings_left in reversed(range(ENCODINGS_AT_MOST)):
        levelled = level(measurement, source, blocks, inside)
        audio.write(part, levelled.blocks(), levelled.gain_db)
        measured = _measured(part) if audio.form.lossy else levelled.measured
        over = _over(measured, aim)
        if not audio.form.lossy or over <= 0 or not encodings_left:
            break
        inside = replace(aim, ceiling_dbtp=(inside.ceiling_dbtp or 0.0) - over - ROOM_DB)
        part.unlink()
    return Finished(
        format=audio.format,
        sample_rate_hz=audio.sample_rate_hz,
        channels=audio.channels,
        frames=audio.frames,
        file_size_bytes=part.stat().st_size,
        file_sha256=sha256_of(part),
        source=source,
        file=measured,
        normalization=replace(levelled.normalization, aim=aim),
    )


def _over(measured: Measured, aim: Aim) -> float:
    """dB by which the true peak passes the ceiling; negative where it does not."""
    if measured.true_peak_dbtp is None or aim.ceiling_dbtp is None:
        return -1.0
    return measured.true_peak_dbtp - aim.ceiling_dbtp


def _measured(path: Path) -> Measured:
    with in_sequence(path) as file:
        measurement = Measurement(file.samplerate, file.channels)
        while len(block := file.read(FRAMES_AT_ONCE, dtype="float32", always_2d=True)):
            measurement.feed(block)
    return measurement.finish()
