"""The blocking half of an export: stores, measures and masters the samples of one attempt."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dgx_music.errors import InvalidArgument
from export_service.analysis.analyzer import Analysis, Analyzer
from export_service.dsp.arrays import Samples
from export_service.dsp.measurement import SignalMeter
from export_service.dsp.normalization import LoudnessTarget
from export_service.dsp.resampling import Resampler
from export_service.formats.provenance import Signer
from export_service.formats.writer import AudioFile
from export_service.library.audio_library import AudioLibrary
from export_service.library.filesystem import translate_disk_errors
from export_service.library.manifests import remove_staged
from export_service.library.mastered_file import MasteredFile
from export_service.pipeline.export_metrics import count_file, phase
from export_service.pipeline.mastering import master_to_file, resolve_loudness_target
from export_service.streaming.recording import Recording, received_audio_not_found
from export_service.streaming.spool import ReceivedAudio
from export_service.tagging.sections import Section, scale_sections
from export_service.tagging.tags import Tags, build_file_tags
from service_runtime.audio.output_options import OutputOptions
from service_runtime.failpoints import failpoint
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class ExportSpec:
    """What file to make of the samples."""

    options: OutputOptions
    tags: Tags
    """Already cleaned."""
    default_target: LoudnessTarget
    """Applies where the options do not set a loudness or a ceiling."""
    generator: str
    """Name and version of this software."""
    tempo_hint_bpm: float = 0.0
    """The tempo that the user asked for; 0 if none."""
    signer: Signer | None = None
    sections: tuple[Section, ...] = ()
    """In frames at the sample rate received."""
    header: Mapping[str, Any] = field(default_factory=dict)
    """The header of the call as JSON, kept with the samples so that another call can resume the export."""


@dataclass(frozen=True)
class ExportResult:
    """The file of a completed export."""

    path: Path
    file: MasteredFile
    analysis: Analysis
    pcm_sha256: str
    """SHA-256 of the samples received."""


class AttemptProcessor:
    """Its methods block. They must be called in order, on one thread."""

    def __init__(self, recording: Recording, spec: ExportSpec, library: AudioLibrary) -> None:
        self._recording, self._spec, self._library = recording, spec, library
        attempt = recording.spec
        self._staged = library.staging_path(attempt.generation_id, attempt.attempt)
        self._rate, self._channels = spec.options.resolve_for_source(attempt.sample_rate_hz, attempt.channels)
        self._measurement: SignalMeter | None = None
        self._analyzer = Analyzer(attempt.sample_rate_hz, spec.tempo_hint_bpm)
        self._stored_frames = 0
        self._sha256: Any = None
        """Of all samples, if the attempt goes on with those of another one; else its sender has it."""
        self.result: ExportResult | None = None

    def create_spool(self) -> None:
        """Creates the spool. Raises errors of the disk, as all methods do."""
        with translate_disk_errors("opening the spool"):
            self._recording.spool.create()
            self._open_meter()

    def continue_spool(self) -> None:
        """Goes on with the samples of a suspended attempt. Raises NotFound if they are damaged; they are then no longer
        kept.
        """
        recording, received = self._recording, self._recording.received
        assert received is not None
        with translate_disk_errors("opening the spool"):
            recording.spool.reopen(received.size_bytes)
        self.measure_received()
        self._stored_frames = received.frames

    def store(self, pcm: bytes, on_stored: Callable[[int, int], None]) -> None:
        """Appends samples to the spool and measures them. `on_stored` is called with the number of frames and bytes
        once they have reached the spool. Raises InvalidArgument for a sample that is not finite.
        """
        samples = np.frombuffer(pcm, dtype="<f4").reshape(-1, self._recording.spec.channels)
        finite = np.isfinite(samples)
        if not finite.all():
            frame, channel = np.argwhere(~finite)[0].tolist()
            raise InvalidArgument(
                "chunk.pcm",
                f"must be finite, but frame {self._stored_frames + frame}, channel {channel} is "
                f"{samples[frame, channel]}",
            )
        with translate_disk_errors("writing the spool"):
            self._recording.spool.append(pcm)
        # Before the measurement, so that listeners do not wait for it.
        on_stored(len(samples), len(pcm))
        self._stored_frames += len(samples)
        if self._sha256 is not None:
            self._sha256.update(pcm)
        self._process(samples)

    def keep_received(self, pcm_sha256: str) -> str:
        """Has the samples kept from now on even if the export fails. `pcm_sha256` is that of those which this attempt
        has sent. Returns that of all, as `measure_received`."""
        received = self._describe(pcm_sha256, is_complete=True)
        try:
            self._recording.spool.describe(received)
            self._recording.received = received
        except OSError as error:
            # Not raised: the export may succeed nevertheless.
            log.warning("received_audio_not_kept", error=str(error))
        return received.pcm_sha256

    def keep_suspended(self, pcm_sha256: str) -> ReceivedAudio:
        """Has the samples so far kept for another attempt."""
        received = self._describe(pcm_sha256, is_complete=False)
        failpoint("export.before_suspend")
        with translate_disk_errors("writing the spool"):
            self._recording.spool.describe(received)
        failpoint("export.after_suspend")
        self._recording.received = received
        return received

    def _describe(self, pcm_sha256: str, *, is_complete: bool) -> ReceivedAudio:
        attempt = self._recording.spec
        return ReceivedAudio(
            attempt.sample_rate_hz,
            attempt.channels,
            self._stored_frames,
            pcm_sha256 if self._sha256 is None else self._sha256.hexdigest(),
            self._spec.header,
            is_complete,
        )

    def measure_received(self) -> str:
        """Measures samples that an earlier attempt received. Raises NotFound if they are damaged; they are then no
        longer kept.
        """
        recording, received = self._recording, self._recording.received
        assert received is not None
        self._sha256 = sha256 = hashlib.sha256()
        with translate_disk_errors("reading the spool"):
            self._open_meter()
            if recording.spool.size_bytes() == received.size_bytes:
                for block in self._received_blocks():
                    sha256.update(block.data)
                    self._process(block)
        if sha256.hexdigest() != received.pcm_sha256:
            recording.received = None
            raise received_audio_not_found(recording.spec.generation_id, "its samples were damaged on the disk")
        return received.pcm_sha256

    def master_and_commit(self, pcm_sha256: str) -> ExportResult:
        """Masters the samples and adds the file to the library."""
        recording, attempt, spec = self._recording, self._recording.spec, self._spec
        failpoint("export.before_mastering")
        with phase("measure"):
            self._measure(self._converter.finish())
            analysis = self._analyzer.finish()
        assert self._measurement is not None
        frames = self._converter.out_frames
        tags = build_file_tags(
            spec.tags,
            attempt.generation_id,
            attempt.attempt,
            spec.generator,
            analysis,
            spec.options.publication,
            scale_sections(spec.sections, attempt.sample_rate_hz, self._rate, frames),
        )
        audio = AudioFile(
            format=spec.options.format,
            sample_rate_hz=self._rate,
            channels=self._channels,
            frames=frames,
            tags=tags,
            seed=uuid.UUID(attempt.generation_id).int,
            signer=spec.signer,
            bit_rate_kbps=spec.options.bit_rate_kbps,
            quality=spec.options.quality,
        )
        target = resolve_loudness_target(spec.options, spec.default_target)
        with translate_disk_errors("writing the file"):
            file = master_to_file(self._staged, audio, self._measurement, target, self._blocks)
            with phase("commit"):
                path = self._library.commit(
                    self._staged, attempt.generation_id, audio.codec.extension, recording.raise_if_aborted
                )
        count_file(file)
        self.result = ExportResult(path, file, analysis, pcm_sha256)
        try:
            is_converted = (self._rate, self._channels) != (attempt.sample_rate_hz, attempt.channels)
            recording.spool.finish(keep_description=is_converted)
        except OSError as error:
            # Not raised: the file is complete. The next start of the service removes the spool.
            log.warning("spool_not_finished", error=str(error))
        return self.result

    def clean_up(self) -> None:
        """Removes all files except the result, and the spool if it is kept. Raises OSError."""
        if self._measurement is not None:
            self._measurement.close()
        if self.result is None:
            remove_staged(self._staged)
        if self.result is None and self._recording.received is None:
            self._recording.spool.remove()
        else:
            self._recording.spool.close()

    def _open_meter(self) -> None:
        self._converter = self._new_converter()
        # Measures at the file's sample rate, because resampling changes the figures by some hundredths of a dB.
        self._measurement = SignalMeter(self._rate, self._channels, self._staged.parent)

    def _process(self, samples: Samples) -> None:
        self._analyzer.feed(samples)
        self._measure(self._converter.feed(samples))

    def _measure(self, samples: Samples) -> None:
        assert self._measurement is not None
        with translate_disk_errors("writing the envelope"):
            self._measurement.feed(samples)

    def _blocks(self) -> Iterator[Samples]:
        converter = self._new_converter()
        for block in self._received_blocks():
            yield converter.feed(block)
        yield converter.finish()

    def _received_blocks(self) -> Iterator[Samples]:
        for block in self._recording.spool.blocks(self._recording.spec.channels):
            self._recording.raise_if_aborted()
            yield block

    def _new_converter(self) -> Resampler:
        attempt = self._recording.spec
        return Resampler(attempt.sample_rate_hz, attempt.channels, self._rate, self._channels)
