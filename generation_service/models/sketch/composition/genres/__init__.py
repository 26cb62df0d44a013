"""The data of the genres: tempo ranges, chord loops, grooves, melodic rhythms, instruments and levels."""

from typing import Final

from generation_service.models.sketch.composition.genres.acoustic import AMBIENT, CLASSICAL, FOLK, JAZZ
from generation_service.models.sketch.composition.genres.bands import FUNK, METAL, POP, ROCK
from generation_service.models.sketch.composition.genres.club import HOUSE, TECHNO, TRANCE
from generation_service.models.sketch.composition.genres.electronic import DRUM_AND_BASS, DUBSTEP, SYNTHWAVE
from generation_service.models.sketch.composition.genres.roots import BLUES, BOSSA_NOVA, REGGAE
from generation_service.models.sketch.composition.genres.urban import HIP_HOP, LOFI, TRAP
from generation_service.models.sketch.composition.style import Style

STYLES: Final[dict[str, Style]] = {
    style.name: style
    for style in (
        HIP_HOP, TRAP, LOFI, HOUSE, TECHNO, TRANCE, DRUM_AND_BASS, DUBSTEP, SYNTHWAVE, ROCK, METAL, POP, FUNK, REGGAE,
        BLUES, BOSSA_NOVA, JAZZ, FOLK, CLASSICAL, AMBIENT,
    )
}  # fmt: skip

DEFAULT_GENRE: Final = "pop"
