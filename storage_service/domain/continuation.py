"""What a generation goes on from: the end of an earlier one, or of a clip."""

from __future__ import annotations

from dataclasses import dataclass

from dgx_music.limits import DEFAULT_CONTINUATION_SECONDS
from service_runtime.validation import check_continuation


@dataclass(frozen=True)
class Continuation:
    """So many seconds of the end of a source, whose audio is export's: 0 stands for 10."""

    source_id: str
    seconds: float = 0.0

    def check(self, field: str) -> None:
        """A UUID, and 0.5 to 25 s or 0; NaN is none of these."""
        check_continuation(field, self.source_id, self.seconds)

    def to_dict(self) -> dict[str, str | float]:
        """What the row keeps: the id as export knows it, and the seconds that are meant."""
        return {"source_id": self.source_id.lower(), "seconds": self.seconds or DEFAULT_CONTINUATION_SECONDS}
