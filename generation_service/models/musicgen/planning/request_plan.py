"""How many frames of codes a request reads and generates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dgx_music.errors import InvalidArgument
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.musicgen.planning.prompt_plan import PromptSpan, plan_prompts
from generation_service.models.musicgen.sliding_window import STRIDE_SHARE, plan_windows, window_stride

MAX_HALF_FADE_SECONDS = 1.0
"""How far a fade from one prompt to the next reaches to both sides of their boundary."""


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """A request in frames of codes, of `hop` frames of audio each."""

    clip: FloatArray | None
    """What is read of the clip to be continued, a whole number of frames."""
    prompt_frames: int
    """Its frames of codes."""
    total_frames: int
    """With those of the clip."""
    spans: tuple[PromptSpan, ...]
    hop: int
    kept_frames: int = 0
    """Frames of audio of the clip that the output begins with."""
    window_starts: tuple[int, ...] = (0,)
    """The first frame of codes that each window reads."""

    def output_frame(self, code_frame: int) -> int:
        """The frame of the output at which a frame of codes begins; below 0 in what is not kept of the clip."""
        return (code_frame - self.prompt_frames) * self.hop + self.kept_frames


def plan_request(
    parameters: GenerationParameters,
    *,
    hop: int,
    window: int,
    sample_rate_hz: int,
    stride_share: float = STRIDE_SHARE,
) -> RequestPlan:
    """`window` is the number of frames of codes in the longest window, `stride_share` as in `LmConfig`. Raises
    InvalidArgument if the clip is too short to be continued."""
    # The audio of the clip that is kept needs no new codes.
    new = math.ceil((parameters.frames - parameters.kept_prompt_frames) / hop)
    stride = window_stride(window, stride_share)
    audio = parameters.prompt_audio
    clip = None if audio is None else _select_end(audio, hop, window - min(new, stride))
    prompt_frames = 0 if clip is None else len(clip) // hop
    spans = plan_prompts(
        parameters,
        first=prompt_frames,
        end=prompt_frames + new,
        offset=prompt_frames - parameters.kept_prompt_frames / hop,
        hop=hop,
        # A fade has room in one window.
        max_half_fade=min(round(MAX_HALF_FADE_SECONDS * sample_rate_hz / hop), stride // 2),
    )
    total = prompt_frames + new
    return RequestPlan(
        clip=clip,
        prompt_frames=prompt_frames,
        total_frames=total,
        spans=spans,
        hop=hop,
        kept_frames=parameters.kept_prompt_frames,
        window_starts=plan_windows(total, window, prompt_frames, [span.start for span in spans], stride),
    )


def _select_end(clip: FloatArray, hop: int, room: int) -> FloatArray:
    """Returns the end of the clip that is read before new codes are generated, at most `room` frames of codes: as many
    as leave room for the new ones in the same window, but not fewer than one window passes to the next."""
    if len(clip) < hop:
        problem = f"it has {len(clip)} frames of audio; at least {hop} are needed to continue it"
        raise InvalidArgument("continuation.source_id", problem)
    frames = min(len(clip) // hop, room)
    return clip[-frames * hop :]
