"""What a generation goes on from: the end of an earlier one, or of a clip."""

from __future__ import annotations

from dataclasses import dataclass

from service_runtime.validation import check_uuid
from storage_service.domain.request_validation import check_range

SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 25.0
DEFAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Continuation:
    """So many seconds of the end of a source, whose audio is export's: 0 stands for 10."""

    source_id: str
    seconds: float = 0.0

    def check(self, field: str) -> None:
        """A UUID, and 0.5 to 25 s or 0; NaN is none of these."""
        check_uuid(f"{field}.source_id", self.source_id)
        if self.seconds:
            check_range(f"{field}.seconds", self.seconds, SHORTEST_SECONDS, LONGEST_SECONDS, "s")

    def as_kept(self) -> dict[str, str | float]:
        """What the row keeps: the id as export knows it, and the seconds that are meant."""
        return {"source_id": self.source_id.lower(), "seconds": self.seconds or DEFAULT_SECONDS}
