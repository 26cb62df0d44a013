"""Mastering, the last step of an export and of a render: normalizes measured samples and writes the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from export_service.dsp.envelope import BlockSource
from export_service.dsp.gain_solver import normalize
from export_service.dsp.measurement import LoudnessMeasurement, SignalMeter
from export_service.dsp.normalization import PROFILE_TARGETS_LUFS, LoudnessTarget
from export_service.formats.reader import open_sequential
from export_service.formats.writer import AudioFile
from export_service.library.filesystem import fsync_and_compute_sha256
from export_service.library.mastered_file import MasteredFile
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions

MAX_ENCODINGS = 6
"""How often a lossy file is encoded at most: once, and again while the encoder pushes peaks over the ceiling."""
REENCODE_HEADROOM_DB = 0.05
"""Extra reduction of the ceiling before encoding again, doubled each time. Reducing it by the measured excess alone
is not enough, because the peaks of the next encoding differ a little."""


def resolve_loudness_target(options: OutputOptions, default: LoudnessTarget) -> LoudnessTarget:
    """Returns the target and ceiling that the options ask for, with those of `default` where they ask for none."""
    target, ceiling = default.target_lufs, default.ceiling_dbtp
    if options.profile is LoudnessProfile.NONE:
        # Above full scale, an integer file would clip, and a lossy one would when it is played.
        target, ceiling = None, None if options.format is FileFormat.WAV_FLOAT else 0.0
    elif options.profile is not None:
        target = PROFILE_TARGETS_LUFS[options.profile]
    elif options.target_lufs is not None:
        target = options.target_lufs
    return LoudnessTarget(target, ceiling if options.ceiling_dbtp is None else options.ceiling_dbtp)


def master_to_file(
    staged: Path, audio: AudioFile, measurement: SignalMeter, target: LoudnessTarget, blocks: BlockSource
) -> MasteredFile:
    """Normalizes the samples and writes them to `staged`, which must not exist yet.

    `blocks` returns the samples from the beginning each time it is called; all of them have been fed to `measurement`,
    which has an envelope.

    An encoder of a lossy format shifts peaks. Its file is therefore decoded and measured, and if it exceeds the
    ceiling, encoded again with a lower one. That costs no loudness as long as the limiter can reduce peaks further.

    Raises OSError, and then leaves it to the caller to remove `staged`.
    """
    source = measurement.finish()
    normalized = normalize(measurement, source, blocks, target)
    ceiling_dbtp = target.ceiling_dbtp or 0.0
    for encoding in range(1, MAX_ENCODINGS + 1):
        audio.write(staged, normalized.blocks(), normalized.gain_db, normalized.measurement)
        measured = _measure_file(staged) if audio.codec.is_lossy else normalized.measurement
        excess_db = _excess_db(measured, target)
        if not audio.codec.is_lossy or excess_db <= 0 or encoding == MAX_ENCODINGS:
            break
        staged.unlink()
        ceiling_dbtp -= excess_db + REENCODE_HEADROOM_DB * 2 ** (encoding - 1)
        normalized = normalize(measurement, source, blocks, replace(target, ceiling_dbtp=ceiling_dbtp))
    signature = audio.sign(staged)
    return MasteredFile(
        format=audio.format,
        sample_rate_hz=audio.sample_rate_hz,
        channels=audio.channels,
        frames=audio.frames,
        file_size_bytes=staged.stat().st_size,
        file_sha256=fsync_and_compute_sha256(staged),
        source=source,
        file=measured,
        normalization=replace(normalized.normalization, target=target),
        marks=(*audio.disclosures, *signature),
    )


def _excess_db(measured: LoudnessMeasurement, target: LoudnessTarget) -> float:
    """Returns by how much the highest peak exceeds the ceiling, in dB; negative if it does not."""
    if measured.peak_db is None or target.ceiling_dbtp is None:
        return -1.0
    return measured.peak_db - target.ceiling_dbtp


def _measure_file(path: Path) -> LoudnessMeasurement:
    with open_sequential(path) as file:
        measurement = SignalMeter(file.samplerate, file.channels)
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            measurement.feed(block)
    return measurement.finish()
