"""Mastering, the last step of an export and of a render: normalizes measured samples and writes the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from export_service.dsp.envelope import Blocks
from export_service.dsp.gain_solver import level
from export_service.dsp.measurement import Measured, Measurement
from export_service.dsp.normalization import PROFILES, Aim, Profile
from export_service.formats.decoding import in_sequence
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


def resolve_loudness_target(options: OutputOptions, default: Aim) -> Aim:
    """Returns the target and ceiling that the options ask for, with those of `default` where they ask for none."""
    target, ceiling = default.target_lufs, default.ceiling_dbtp
    if options.profile is LoudnessProfile.NONE:
        # Above full scale, an integer file would clip, and a lossy one would when it is played.
        target, ceiling = None, None if options.format is FileFormat.WAV_FLOAT else 0.0
    elif options.profile is not None:
        target = PROFILES[Profile(options.profile.value)].target_lufs
    elif options.target_lufs is not None:
        target = options.target_lufs
    return Aim(target, ceiling if options.ceiling_dbtp is None else options.ceiling_dbtp)


def master_to_file(
    staged: Path, audio: AudioFile, measurement: Measurement, target: Aim, blocks: Blocks
) -> MasteredFile:
    """Normalizes the samples and writes them to `staged`, which must not exist yet.

    `blocks` returns the samples from the beginning each time it is called; all of them have been fed to `measurement`,
    which has an envelope.

    An encoder of a lossy format shifts peaks. Its file is therefore decoded and measured, and if it exceeds the
    ceiling, encoded again with a lower one. That costs no loudness as long as the limiter can reduce peaks further.

    Raises OSError, and then leaves it to the caller to remove `staged`.
    """
    source = measurement.finish()
    levelled = level(measurement, source, blocks, target)
    ceiling_dbtp = target.ceiling_dbtp or 0.0
    for encoding in range(1, MAX_ENCODINGS + 1):
        audio.write(staged, levelled.blocks(), levelled.gain_db, levelled.measured)
        measured = _measure_file(staged) if audio.form.lossy else levelled.measured
        excess_db = _excess_db(measured, target)
        if not audio.form.lossy or excess_db <= 0 or encoding == MAX_ENCODINGS:
            break
        staged.unlink()
        ceiling_dbtp -= excess_db + REENCODE_HEADROOM_DB * 2 ** (encoding - 1)
        levelled = level(measurement, source, blocks, replace(target, ceiling_dbtp=ceiling_dbtp))
    audio.sign(staged)
    return MasteredFile(
        format=audio.format,
        sample_rate_hz=audio.sample_rate_hz,
        channels=audio.channels,
        frames=audio.frames,
        file_size_bytes=staged.stat().st_size,
        file_sha256=fsync_and_compute_sha256(staged),
        source=source,
        file=measured,
        normalization=replace(levelled.normalization, aim=target),
        marks=audio.marks,
    )


def _excess_db(measured: Measured, target: Aim) -> float:
    """Returns by how much the highest peak exceeds the ceiling, in dB; negative if it does not."""
    if measured.peak_db is None or target.ceiling_dbtp is None:
        return -1.0
    return measured.peak_db - target.ceiling_dbtp


def _measure_file(path: Path) -> Measured:
    with in_sequence(path) as file:
        measurement = Measurement(file.samplerate, file.channels)
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            measurement.feed(block)
    return measurement.finish()
