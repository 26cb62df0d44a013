"""Mastering, the last step of an export and of a render: normalizes measured samples and writes the file."""

from __future__ import annotations

from pathlib import Path

from export_service.dsp.envelope import BlockSource
from export_service.dsp.gain_solver import NormalizedSignal, normalize
from export_service.dsp.measurement import LoudnessMeasurement, SignalMeter
from export_service.dsp.normalization import PROFILE_TARGETS_LUFS, LoudnessTarget
from export_service.formats.codecs import CODECS
from export_service.formats.reader import open_as_played
from export_service.formats.writer import AudioFile
from export_service.library.filesystem import fsync_and_compute_sha256
from export_service.library.mastered_file import MasteredFile
from export_service.pipeline.export_metrics import phase
from export_service.pipeline.lossy_correction import Encoding, encode_to_target
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.audio.output_options import LoudnessProfile, OutputOptions


def resolve_loudness_target(options: OutputOptions, default: LoudnessTarget) -> LoudnessTarget:
    """Returns the target and ceiling that the options ask for, with those of `default` where they ask for none."""
    target, ceiling = default.target_lufs, default.ceiling_dbtp
    if options.profile is LoudnessProfile.NONE:
        # Above full scale, an integer file would clip, and a lossy one would when it is played.
        target, ceiling = None, None if CODECS[options.format].is_float else 0.0
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

    The file of a lossy format is decoded and measured, and if it misses the target, encoded again.

    Raises OSError, and then leaves it to the caller to remove `staged`.
    """
    source = measurement.finish()

    def write(aim: LoudnessTarget) -> NormalizedSignal:
        with phase("limit"):
            signal = normalize(measurement, source, blocks, aim)
        staged.unlink(missing_ok=True)
        with phase("write"):
            audio.write(staged, signal.blocks(), signal.gain_db, signal.measurement)
        return signal

    if audio.codec.is_lossy:
        measured, normalization = encode_to_target(lambda aim: Encoding(write(aim), _measure(staged)), source, target)
    else:
        signal = write(target)
        measured, normalization = signal.measurement, signal.normalization
    with phase("sign"):
        signature = audio.sign(staged)
    with phase("sync"):
        file_sha256 = fsync_and_compute_sha256(staged)
    return MasteredFile(
        format=audio.format,
        sample_rate_hz=audio.sample_rate_hz,
        channels=audio.channels,
        frames=audio.frames,
        file_size_bytes=staged.stat().st_size,
        file_sha256=file_sha256,
        source=source,
        file=measured,
        normalization=normalization,
        marks=(*audio.disclosures, *signature),
    )


def _measure(path: Path) -> LoudnessMeasurement:
    with open_as_played(path) as file:
        measurement = SignalMeter(file.samplerate, file.channels)
        while len(block := file.read(BLOCK_FRAMES)):
            measurement.feed(block)
    return measurement.finish()
