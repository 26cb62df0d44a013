"""What a generation continues: the end of an earlier generation, or of a clip."""

from __future__ import annotations

from dataclasses import dataclass

from dgx_music.limits import DEFAULT_CONTINUATION_SECONDS
from service_runtime.validation import check_continuation


@dataclass(frozen=True)
class Continuation:
    """The last `seconds` of a source, whose audio the export service holds. 0 means the default of 10 s."""

    source_id: str
    seconds: float = 0.0

    def check(self, field: str) -> None:
        """Raises InvalidArgument unless the source is a UUID and the seconds are 0 or 0.5 to 25. Rejects NaN."""
        check_continuation(field, self.source_id, self.seconds)

    def to_dict(self) -> dict[str, str | float]:
        """Returns what the row stores: the id in lower case, as export uses it, and the seconds or their default."""
        return {"source_id": self.source_id.lower(), "seconds": self.seconds or DEFAULT_CONTINUATION_SECONDS}
