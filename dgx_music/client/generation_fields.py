"""What is known about a generation, read from the contract's message as Python values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, cast

from google.protobuf.json_format import MessageToDict

from dgx_music.errors import GenerationCancelled, GenerationFailed
from dgx_music.storage.v1.storage_pb2 import Generation as Message
from dgx_music.storage.v1.storage_pb2 import GenerationStage, GenerationState

State = Literal["pending", "processing", "completed", "failed", "cancelled"]
Stage = Literal["queued", "loading_model", "encoding_prompt", "generating", "exporting"]

FINAL_STATES = ("completed", "failed", "cancelled")
STATES: dict[str, GenerationState] = {
    name.removeprefix("GENERATION_STATE_").lower(): getattr(GenerationState, name)
    for name in GenerationState.keys()[1:]
}
"""The name of a state here → the contract's."""
LONGEST_PROMPT_IN_REPR = 40
"""Characters."""


class GenerationFields:
    """A request for music and its result, as the server last reported them. Figures of the audio are None until it is
    completed, and where the audio is too short or too quiet for them."""

    @property
    def message(self) -> Message:
        """All fields, as in storage.proto."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """UUID."""
        return self.message.id

    @property
    def prompt(self) -> str:
        """The description of the music."""
        return self.message.prompt

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.message.model_name

    @property
    def state(self) -> State:
        """pending, processing, completed, failed or cancelled."""
        name = GenerationState.Name(self.message.state)
        return cast(State, name.removeprefix("GENERATION_STATE_").lower())

    @property
    def is_finished(self) -> bool:
        """Whether it is completed, failed or cancelled."""
        return self.state in FINAL_STATES

    @property
    def stage(self) -> Stage | None:
        """What is being done for it while it is processing; otherwise None."""
        if not self.message.stage:
            return None
        name = GenerationStage.Name(self.message.stage)
        return cast(Stage, name.removeprefix("GENERATION_STAGE_").lower())

    @property
    def progress(self) -> float:
        """Fraction of the audio that has been generated, 0 to 1."""
        return self.message.progress

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.message.duration_seconds

    @property
    def seed(self) -> int:
        """The random seed, also where none was given."""
        return self.message.seed

    @property
    def sample_rate(self) -> int:
        """Of the file, in Hz."""
        requested = self.message.output.sample_rate_hz or self.message.sample_rate_hz
        return int(self._number("file_sample_rate_hz") or requested)

    @property
    def channels(self) -> int:
        """Of the file: 1 or 2."""
        return int(self._number("file_channels") or self.message.output.channels or self.message.channels)

    @property
    def loudness(self) -> float | None:
        """Integrated loudness of the file in LUFS (ITU-R BS.1770-5)."""
        return self._number("integrated_lufs")

    @property
    def true_peak(self) -> float | None:
        """Maximum true peak of the file in dBTP."""
        return self._number("true_peak_dbtp")

    @property
    def tempo(self) -> float | None:
        """Beats per minute: the model's own, or else as measured."""
        return self._number("bpm") or self._number("measured_bpm")

    @property
    def key(self) -> str | None:
        """For example "A minor": the model's own, or else as measured."""
        return self._text("key") or self._text("measured_key")

    @property
    def file_path(self) -> str | None:
        """Path of the file on the server, relative to its data directory; None until it is completed."""
        return self.message.file_path or None

    @property
    def error(self) -> str | None:
        """Why it failed, or why its last attempt did; otherwise None."""
        return self.message.error_message or None

    @property
    def rating(self) -> int | None:
        """1 to 5, or None if it is not rated."""
        return self.message.rating or None

    @property
    def client(self) -> str | None:
        """Who created it."""
        return self.message.client or None

    @property
    def created_at(self) -> datetime:
        """When it was created, in UTC."""
        return self.message.created_at.ToDatetime(tzinfo=UTC)

    @property
    def metadata(self) -> dict[str, Any]:
        """Properties of the music and the file, and your own data."""
        return MessageToDict(self.message.metadata)

    def raise_if_unsuccessful(self) -> None:
        """Raises GenerationFailed or GenerationCancelled if it has ended so."""
        facts = {"id": self.id, "error_message": self.message.error_message}
        if self.state == "failed":
            message = f"generation {self.id} failed: {self.error}; retry() tries again"
            raise GenerationFailed(message, reason="GENERATION_FAILED", metadata=facts)
        if self.state == "cancelled":
            raise GenerationCancelled(
                f"generation {self.id} was cancelled", reason="GENERATION_CANCELLED", metadata=facts
            )

    def __repr__(self) -> str:
        prompt = self.prompt
        if len(prompt) > LONGEST_PROMPT_IN_REPR:
            prompt = prompt[: LONGEST_PROMPT_IN_REPR - 1] + "…"
        return f"<{type(self).__name__} {prompt!r}: {', '.join(self.summary())}, id {self.id}>"

    def summary(self) -> list[str]:
        """Returns what is known, for people: state, length, loudness, true peak, tempo, key and error."""
        state = f"{self.state} {self.progress:.0%}" if self.state == "processing" else self.state
        figures = (
            (self.loudness, "{:.1f} LUFS"),
            (self.true_peak, "{:.1f} dBTP"),
            (self.tempo, "{:g} BPM"),
            (self.key, "{}"),
        )
        known = [layout.format(value) for value, layout in figures if value is not None]
        return [state, f"{self.duration:g} s", *known, *filter(None, [self.error])]

    def _number(self, name: str) -> float | None:
        metadata = self.message.metadata.fields
        return metadata[name].number_value if name in metadata and metadata[name].HasField("number_value") else None

    def _text(self, name: str) -> str | None:
        metadata = self.message.metadata.fields
        return (metadata[name].string_value or None) if name in metadata else None
