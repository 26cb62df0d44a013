"""Reggae, blues and bossa nova."""

from __future__ import annotations

from typing import Final

from generation_service.models.sketch.composition.style import Drum, Part, Style

# fmt: off
REGGAE: Final = Style(
    name="reggae", gain=2.00, bpm=(70, 82), minor_share=0.45, form="song",
    passing=(("i", "iv", "v", "bVI"), ("I", "IV", "V", "vi", "ii")),
    minor_loops=(("i", "iv", "i", "v"), ("i", "bVII", "i", "bVII"), ("i", "iv", "bVI", "v"), ("i", "i", "iv", "V"),
        ("i", "bVI", "iv", "v"), ("i", "v", "i", "iv"), ("i", "iv v", "i", "bVI V"), ("iv", "i", "v", "i")),
    major_loops=(("I", "IV", "I", "V"), ("I", "V", "vi", "IV"), ("I", "I", "IV", "V"), ("I", "ii", "IV", "I"),
        ("I", "IV V", "I", "vi V"), ("I", "iii", "IV", "V")),
    chords=Part("clean guitar", 0.32, 60, ("..X...X...X...X.", "..Xo..X...Xo..X.", "..X...Xo..X...Xo",
        "..Xo..Xo..X...X.", "..X...X...Xo..Xo", "..Xo......Xo..X.", "......X.......Xo"), 0.2, 0.35,
        0.32, ducked=False,
        voicing="triad", pattern="strum", echo=0.12),
    bass=Part("dub bass", 0.47, 28, ("X..x..x.x..x....", "..x.x.x.X...x...", "X.....x.x.x.x...", "X..x.....xx.x..."),
        0.0, gate=0.85,
        energy=0.25, ducked=False, pattern="reggae"),
    lead=Part("trumpet", 0.20, 60, send=0.35, pan=-0.15, alternates=("trumpet", "sax", "flute", "organ"), echo=0.4),
    figure=Part("organ", 0.19, 57, ("..x.o.x...x.o.x.", ".ox..ox..ox..ox.", "..x.oox...x.oox.", "X.......o.......",
        "x.o...x.x.o..x..", "...x..ox...x..ox"), 0.15, -0.4, 0.5,
        ducked=False,
        voicing="triad", alternates=("organ", "organ", "piano")),
    cells=("X..x..x.x.......", "..x.x.x...._....", "X.....x..x......", "....x.x.X.......", "X.x...x.....x...",
        "....X..x..x.x...", "x.x.x...X......."),
    drums=(
        Drum("kick", ("........X.......", "X.......X.......", "X...X...X...X..."), 0.47, energy=0.3, send=0.02),
        Drum("cross stick", ("........X.......", "........X..g...o", "....g...X......."), 0.34, energy=0.3, send=0.22),
        Drum("hat", ("x.xox.xox.xox.xo", "X.x.X.x.X.x.X.x.", "xox.xox.xox.xox."), 0.19, 0.25, 0.2),
        Drum("reggae snare", ("..............g.", "...g...........g"), 0.30, 0.05, 0.6, 0.2),
        Drum("shaker", ("oxoxoxoxoxoxoxox",), 0.09, -0.35, 0.8),
        Drum("bongo", ("..o..o.o..o..o..", "...o.o.....o.oo."), 0.13, -0.45, 0.88, 0.15),
    ),
    lead_energy=0.6, scale="pentatonic", swing=0.22, human_seconds=0.005, fill="timbales", cadence=("v", "V"),
        echo_beats=0.75,
    intro=frozenset({"chords", "figure", "hat"}), breakdown=frozenset({"bass", "chords", "cross stick", "kick"}),
        crash="crash",
    reverb_seconds=1.6, ring_seconds=2.2,
)
BLUES: Final = Style(
    name="blues", gain=1.05, bpm=(84, 124), minor_share=0.3, form="head", one_loop=True, solo=True,
    minor_loops=(
        ("i7", "i7", "i7", "i7", "iv7", "iv7", "i7", "i7", "bVI7", "V7", "i7", "V7"),
        ("i7", "iv7", "i7", "i7", "iv7", "iv7", "i7", "i7", "v7", "iv7", "i7", "V7"),
    ),
    major_loops=(
        ("I", "I", "I", "I7", "IV7", "IV7", "I", "I", "V7", "IV7", "I", "V7"),
        ("I", "IV7", "I", "I7", "IV7", "IV7", "I", "I", "V7", "IV7", "I IV7", "I V7"),
    ),
    chords=Part("clean guitar", 0.57, 52, ("x.X.x.X.x.X.x.X.", "X.....x.X.....x.", "..X...X...X...X.",
        "X...x.x.....x.x."), 0.15, 0.4, 0.6,
        ducked=False, voicing="rootless", alternates=("clean guitar", "piano", "organ")),
    bass=Part("bass", 0.62, 28, ("X.x.X.x.X.x.X.x.", "X...X...X...X..."), 0.0, gate=0.9, ducked=False,
        pattern="boogie"),
    lead=Part("lead guitar", 0.60, 60, send=0.25, pan=-0.1, alternates=("lead guitar", "lead guitar", "sax", "piano"),
        echo=0.12),
    figure=Part("organ", 0.26, 57, ("X...............", "X.......x......."), 0.2, -0.45, 0.95, energy=0.75,
        ducked=False, voicing="rootless",
        alternates=("organ", "piano")),
    cells=("X.x.x.X....._...", "..x.X...x..._...", "X...x.x.X..._...", "......x.X.x.x...", "x.X.x.......x.x."),
    drums=(
        Drum("kick", ("X.......X.......", "X.....x.X.......", "X.......X.....x."), 0.54, energy=0.2, send=0.03),
        Drum("snare", ("....X.......X...", "....X.....g.X...", "....X.g.....X..."), 0.42, energy=0.2, send=0.14),
        Drum("ride", ("X.x.X.x.X.x.X.x.", "X...X.x.X...X.x."), 0.20, 0.3, 0.7),
        Drum("hat", ("X.x.X.x.X.x.X.x.", "x.x.X.x.x.x.X.x."), 0.19, 0.25, 0.1),
    ),
    lead_energy=0.5, scale="blues", swing=0.33, swing_eighths=True, human_seconds=0.006, fill="snare", cadence=("V7",
        "V7"),
    close_colour="7", intro=frozenset({"chords", "bass", "hat"}), breakdown=frozenset({"chords", "bass", "hat",
        "lead"}),
    reverb_seconds=1.0, ring_seconds=2.0,
)
BOSSA_NOVA: Final = Style(
    name="bossa nova", gain=1.86, bpm=(118, 138), minor_share=0.35, form="head",
    minor_loops=(("i9", "iv7", "iim7b5", "V7b9"), ("i6", "i6", "iim7b5 V7b9", "i6"), ("i9", "bVImaj7", "iim7b5", "V7")),
    major_loops=(("Imaj9", "vi7", "ii9", "V13"), ("Imaj7", "Imaj7", "ii7", "V13"), ("Imaj9", "VI7b9", "ii9", "V13"),
        ("Imaj7", "iii7 vi7", "ii9 V13", "Imaj9")),
    chords=Part("nylon guitar", 0.34, 52, ("X..x..x...x..x..", "x..x...x..x...x.", "..x..x..x..x..x.",
        "X..x..x..x..x..."), 0.22, -0.25, 0.75,
        ducked=False, voicing="rootless"),
    bass=Part("upright bass", 0.45, 28, ("X.....xxX.....xx", "X.....x.X.....x.", "X..x..x.X..x..x."), 0.04, gate=0.9,
        ducked=False, pattern="fifths"),
    lead=Part("flute", 0.32, 67, send=0.35, pan=0.2, alternates=("flute", "sax", "vibraphone", "guitar", "trumpet")),
    pad=Part("strings", 0.09, 57, send=0.35, energy=0.7, voicing="open"),
    cells=("X.....x...x.....", "..x...x.X..._...", "X..x..x.....x...", "....x...x.x.....", "X.....x..x......"),
    drums=(
        Drum("cross stick", ("X..x..x...x..x..", "X.....x.....x.......x.....x.....", "x..x...x..x..x.."), 0.28, -0.15,
            0.2, 0.14),
        Drum("soft kick", ("x.....oxx.....ox", "x.....x.x.....x."), 0.34, energy=0.2, send=0.03),
        Drum("soft hat", ("x.x.x.x.x.x.x.x.", "xoxoxoxoxoxoxoxo"), 0.19, 0.3, 0.3),
        Drum("shaker", ("XoxoXoxoXoxoXoxo", "xoxXxoxXxoxXxoxX"), 0.13, 0.45, 0.4),
        Drum("brush", ("....o.......o...",), 0.16, -0.3, 0.8, 0.12),
    ),
    lead_energy=0.5, human_seconds=0.006, fill="brushes", crash="", cadence=("V7b9", "V13"), close_colour="6",
        ring_seconds=2.2,
    intro=frozenset({"chords", "shaker", "bass"}), breakdown=frozenset({"chords", "bass", "lead", "shaker"}),
        reverb_seconds=1.4,
)
