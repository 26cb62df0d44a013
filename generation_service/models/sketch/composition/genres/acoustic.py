"""Jazz, folk, classical and ambient."""

from __future__ import annotations

from typing import Final

from generation_service.models.sketch.composition.style import Drum, Part, Style

# fmt: off
JAZZ: Final = Style(
    name="jazz", gain=1.4, bpm=(112, 160), minor_share=0.35, form="head", solo=True,
    minor_loops=(("i6", "iim7b5 V7b9", "i6", "i6"), ("i7", "iv7", "iim7b5", "V7b9"), ("i6", "bVI7", "iim7b5 V7b9",
        "i6")),
    major_loops=(("Imaj7", "vi7", "ii9", "V13"), ("Imaj9", "VI7b9", "ii9", "V13"), ("Imaj7 vi7", "ii9 V13",
        "iii7 VI7b9", "ii9 V13"),
        ("Imaj9", "ii7 V13", "Imaj9", "ii7 V13")),
    chords=Part("piano", 0.46, 53, ("X.....x.........", "..x.....x.......", "......X.......x.", "X.........x.....",
        "..x..._...x..._."), 0.2, -0.25,
        0.45, ducked=False, voicing="rootless", alternates=("piano", "piano", "guitar", "vibraphone")),
    bass=Part("upright bass", 0.64, 28, ("X...x...x...x...", "X...x...x...x.g."), 0.04, gate=0.95, ducked=False,
        pattern="walking"),
    lead=Part("sax", 0.28, 60, send=0.3, pan=0.2, alternates=("sax", "trumpet", "piano", "flute", "guitar")),
    cells=("X.x.x...x.x.x...", "..x.x.x.X..._...", "X...x.x.......x.", "x.x.x.x.X..._...", "....x.x.x.x.x...",
        "X.......x.x.x.x."),
    drums=(
        Drum("ride", ("X...x.x.X...x.x.", "X...x.x.X...x...", "X.x.x...X...x.x."), 0.22, 0.3, 0.2, 0.1, late_ms=-3),
        Drum("pedal hat", ("....X.......X...",), 0.17, -0.25, 0.2),
        Drum("soft kick", ("g...g...g...g...", "o.......o.......", "g...g...g...g.o."), 0.32, send=0.05),
        Drum("brush", ("....o.......o...", "......o.......o.", "..o...o.....o...", "..g...o.g...g..."), 0.24, -0.1,
            0.4, 0.15),
        Drum("rim", ("......o.........", "..............o."), 0.15, -0.2, 0.8, 0.15),
    ),
    lead_energy=0.5, swing=0.33, swing_eighths=True, human_seconds=0.007, fill="brushes", crash="", cadence=("V7b9",
        "V13"),
    close_colour="6", ring_seconds=2.2, intro=frozenset({"chords", "bass", "ride"}),
    breakdown=frozenset({"bass", "ride", "lead"}), reverb_seconds=1.2,
)
FOLK: Final = Style(
    name="folk", gain=1.4, bpm=(88, 116), minor_share=0.2, form="song",
    minor_loops=(("i", "bVII", "i", "v"), ("i", "bVI", "bVII", "i"), ("i", "iv", "i", "V")),
    major_loops=(("I", "IV", "I", "V"), ("I", "V", "vi", "IV"), ("I", "vi", "IV", "V"), ("I", "I", "IV", "I")),
    chords=Part("steel guitar", 0.62, 47, ("X...x.xx..x.x.x.", "X...x.x.x...x.xx", "X.x.x.x.X.x.x.xx"), 0.18, -0.2,
        0.95, ducked=False, pattern="strum",
        voicing="open"),
    bass=Part("upright bass", 0.50, 28, ("X.......x.......", "X.......x.....x.", "X...x...x...x..."), 0.04, gate=0.9,
        energy=0.45, ducked=False,
        pattern="fifths"),
    lead=Part("fiddle", 0.28, 62, send=0.3, pan=0.25, alternates=("fiddle", "flute", "banjo", "fiddle")),
    pad=Part("strings", 0.1, 55, send=0.3, energy=0.92, voicing="open"),
    figure=Part("steel guitar", 0.36, 52, ("x.x.x.x.x.x.x.x.", "x.xxx.x.x.xxx.x.", "x...x.x.x.x.x.x."), 0.2, 0.35, 1.5,
        ducked=False, pattern="travis",
        voicing="triad", alternates=("steel guitar", "steel guitar", "banjo", "nylon guitar")),
    cells=("X...x...x.x.x...", "X.x.x...X.......", "X.....x.x...x...", "x.x.X.x.x..._...", "X...X...x......."),
    drums=(
        Drum("stomp", ("X.......X.......", "X.......X.....o."), 0.48, energy=0.5, send=0.06),
        Drum("tambourine", ("....X.......X...", "..o.X..o..o.X..o"), 0.18, 0.25, 0.5, 0.1),
        Drum("brush", ("x.oxx.oxx.oxx.ox", "..o.x..o..o.x..o"), 0.17, -0.2, 0.55, 0.1),
        Drum("clap", ("....x.......x...",), 0.16, energy=0.9, send=0.16),
    ),
    lead_energy=0.6, human_seconds=0.007, fill="none", crash="", cadence=("V", "V"), ring_seconds=2.4,
        scale="pentatonic",
    intro=frozenset({"figure"}), breakdown=frozenset({"figure", "lead"}), reverb_seconds=1.1,
)
CLASSICAL: Final = Style(
    name="classical", gain=1.3, bpm=(72, 104), minor_share=0.5, form="arc",
    minor_loops=(("i", "iv", "V7", "i"), ("i", "bVI", "iv", "V"), ("i", "iim7b5 V7", "i", "V7"), ("i", "iv", "i V7",
        "i")),
    major_loops=(("I", "IV", "V7", "I"), ("I", "vi", "ii", "V7"), ("I", "V7", "I", "IV V7"), ("I", "ii7", "V7", "I")),
    chords=Part("piano", 0.40, 53, ("XoxoXoxoXoxoXoxo", "X.x.x.x.X.x.x.x.", "xoxoxoxoxoxoxoxo"), 0.35, -0.15, 1.6,
        ducked=False, pattern="alberti",
        voicing="triad", alternates=("piano", "piano", "harp")),
    bass=Part("strings", 0.24, 36, ("X...............", "X.......x......."), 0.25, ducked=False, energy=0.5),
    lead=Part("strings", 0.30, 65, send=0.35, pan=0.12, alternates=("strings", "flute", "fiddle", "piano")),
    pad=Part("strings", 0.17, 52, send=0.3, energy=0.4, voicing="open"),
    cells=("X.......x...x...", "X...x...x.......", "X.....x.x...x...", "X...........x...", "X...x.x.x...x..."),
    lead_energy=0.4, lead_hold=12, human_seconds=0.006, fill="none", crash="", cadence=("V7", "V7"), ring_seconds=3.2,
    intro=frozenset({"chords", "pad"}), breakdown=frozenset({"pad", "lead"}), reverb_seconds=2.2, reverb_gain=0.6,
)
AMBIENT: Final = Style(
    name="ambient", gain=1.3, bpm=(60, 80), minor_share=0.5, form="arc", chord_bars=2,
    minor_loops=(("i9", "bVImaj7", "i9", "v7"), ("iadd9", "ivadd9", "bVImaj7", "i9"), ("iadd9", "bVImaj7", "iadd9",
        "bVIIsus4")),
    major_loops=(("Iadd9", "IVmaj7", "Iadd9", "IVmaj9"), ("Imaj9", "iii7", "IVmaj9", "Iadd9"), ("Iadd9", "vi9",
        "IVmaj7", "Iadd9")),
    chords=Part("warm pad", 0.30, 50, ("X...............",), 0.5, voicing="open"),
    bass=Part("soft bass", 0.30, 33, ("X...............................",), 0.1, energy=0.2),
    lead=Part("bells", 0.16, 67, send=0.7, pan=0.2, alternates=("bells", "piano", "flute", "harp", "vibraphone"),
        echo=0.6),
    pad=Part("choir", 0.15, 57, send=0.5, energy=0.4, voicing="open"),
    figure=Part("harp", 0.12, 62, ("x.....x.....x...", "x.......x...x...", "....x.....x....."), 0.6, -0.35, 2.0,
        energy=0.85, pattern="wave",
        voicing="triad", alternates=("harp", "kalimba", "bells", "piano"), echo=0.5),
    cells=("X...............", "....X.......x...", "X.......x.......", "........X.......", "..x.........x..."),
    lead_energy=0.0, lead_hold=16, fill="none", crash="", echo_beats=1.5, close_colour="add9", cadence=("bVImaj7",
        "IVmaj9"),
    ring_seconds=3.2, scale="pentatonic", intro=frozenset({"chords", "texture", "pad", "lead"}),
    breakdown=frozenset({"pad", "lead"}), reverb_seconds=3.0, reverb_gain=0.8, texture="air", texture_gain=0.02,
)
