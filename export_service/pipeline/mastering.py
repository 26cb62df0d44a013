"""The last step of an export and of a render: from measured samples to a file that is as loud as it is to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from export_service.dsp.envelope import BlockSource
from export_service.dsp.gain_solver import normalize
from export_service.dsp.measurement import LoudnessMeasurement, SignalMeter
from export_service.dsp.normalization import PROFILE_TARGETS_LUFS, LoudnessTarget
from export_service.formats.reader import open_sequential
from export_service.formats.writer import AudioFile
from export_service.library.filesystem import synced_sha256
from export_service.library.mastered_file import Finished
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions

ENCODINGS_AT_MOST = 6
"""Of a lossy file: the first, and those that make room for what the encoder put on the peaks."""
ROOM_DB = 0.05
"""More than what the first encoding was over by, and twice as much each time after: an encoder's next peaks are not
quite the same."""


def aim_for(options: OutputOptions, default: LoudnessTarget) -> LoudnessTarget:
    """Where the options bring the level; `default` where they do not say."""
    target, ceiling = default.target_lufs, default.ceiling_dbtp
    if options.profile is LoudnessProfile.NONE:
        # An integer file would clip above full scale, and a lossy one in whatever plays it.
        target, ceiling = None, None if options.format is FileFormat.WAV_FLOAT else 0.0
    elif options.profile is not None:
        target = PROFILE_TARGETS_LUFS[options.profile]
    elif options.target_lufs is not None:
        target = options.target_lufs
    return LoudnessTarget(target, ceiling if options.ceiling_dbtp is None else options.ceiling_dbtp)


def finish(
    part: Path, audio: AudioFile, measurement: SignalMeter, aim: LoudnessTarget, blocks: BlockSource
) -> Finished:
    """Writes `part` of the samples that `blocks` gives, which have all been measured, with an envelope.

    An encoder of a lossy format moves peaks. So its file is decoded and measured, and where it passes the ceiling
    written again with a lower one, which costs no loudness while the limiter can take off more.
    Raises OSError; the part is then left for the caller to remove.
    """
    source = measurement.finish()
    levelled = normalize(measurement, source, blocks, aim)
    lower_dbtp = aim.ceiling_dbtp or 0.0
    for encoding in range(1, ENCODINGS_AT_MOST + 1):
        audio.write(part, levelled.blocks(), levelled.gain_db, levelled.measurement)
        measured = _measured(part) if audio.codec.is_lossy else levelled.measurement
        over_db = _over(measured, aim)
        if not audio.codec.is_lossy or over_db <= 0 or encoding == ENCODINGS_AT_MOST:
            break
        part.unlink()
        lower_dbtp -= over_db + ROOM_DB * 2 ** (encoding - 1)
        levelled = normalize(measurement, source, blocks, replace(aim, ceiling_dbtp=lower_dbtp))
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
        normalization=replace(levelled.normalization, target=aim),
        marks=audio.disclosures,
    )


def _over(measured: LoudnessMeasurement, aim: LoudnessTarget) -> float:
    """dB by which a peak passes the ceiling; negative where none does."""
    if measured.peak_db is None or aim.ceiling_dbtp is None:
        return -1.0
    return measured.peak_db - aim.ceiling_dbtp


def _measured(path: Path) -> LoudnessMeasurement:
    with open_sequential(path) as file:
        measurement = SignalMeter(file.samplerate, file.channels)
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            measurement.feed(block)
    return measurement.finish()
