"""The data of the genres."""

from generation_service.models.sketch.composition.genres import STYLES
from generation_service.models.sketch.composition.music_theory import parse_chord
from generation_service.models.sketch.composition.style import VELOCITIES
from generation_service.models.sketch.pads import PADS
from generation_service.models.sketch.synthesis.instruments import TIMBRES


def test_every_style_is_consistent() -> None:
    for style in STYLES.values():
        for loop in (*style.minor_loops, *style.major_loops):
            assert all(parse_chord(numeral, 0).intervals for numeral in loop)
            assert any(numeral.lower().rstrip("majdsu0123456789") == "i" for numeral in loop), "the loop has no tonic"
        parts = [part for part in (style.chords, style.bass, style.lead, style.pad) if part]
        assert {part.sound for part in parts} <= {*TIMBRES, *PADS, "808"}
        assert {*style.lead_alternates, *style.chord_alternates} <= {*TIMBRES, *PADS}
        for rhythm in [r for item in (*parts, *style.drums) for r in item.rhythms]:
            assert len(rhythm) % 16 == 0, (style.name, rhythm)
            assert set(rhythm) <= {*VELOCITIES, "."}, (style.name, rhythm)
