"""The data of the genres: tempo ranges, chord loops, grooves, instruments and levels."""

from __future__ import annotations

from typing import Final

from generation_service.models.sketch.composition.style import Drum, Part, Style

# fmt: off
_EIGHTHS: Final = "X.x.x.x.X.x.x.x."

_HIP_HOP = Style(
    name="hip hop", gain=1.95, bpm=(84, 96), minor_share=0.8,
    minor_loops=(("i7", "i7", "bVImaj7", "v7"), ("i9", "iv7", "i9", "bVII7"), ("i7", "bVII", "bVImaj7", "V7")),
    major_loops=(("Imaj7", "vi7", "ii7", "V7"), ("Imaj9", "iii7", "vi7", "IVmaj7")),
    chords=Part("epiano", 0.60, 55, ("X.....x.........", "X.........x.....", "X..x......x....."), 0.18, -0.15, 0.85),
    bass=Part("bass", 0.62, 31, ("X.....x.x..x....", "X......x..x...x.", "X..x....x.x....."), 0.0, gate=0.8,
        energy=0.3, ducked=False),
    lead=Part("piano", 0.44, 67, send=0.3, pan=0.2),
    drums=(
        Drum("boom kick", ("X.....o.x.X.....", "X......x..X....o", "X..o....x.X....."), 0.58, send=0.01),
        Drum("boom snare", ("....X.......X...", "....X..o....X..o", "....X....o..X..."), 0.48, 0.03, send=0.14),
        Drum("hat", ("X.x.x.x.X.x.x.x.", "X.x.xox.X.x.x.xo"), 0.22, 0.25),
        Drum("open hat", ("..............x.", "......x........."), 0.17, 0.3, 0.7),
    ),
    bass_style="groove", lead_density=0.4, swing=0.2, human_seconds=0.005, echo_beats=0.75,
    reverb_seconds=1.1, texture="vinyl", texture_gain=0.0036, lead_alternates=("piano", "flute", "bells", "strings"),
    chord_alternates=("epiano", "piano"),
)
_TRAP = Style(
    name="trap", gain=1.25, bpm=(132, 148), minor_share=0.95,
    minor_loops=(("i", "i", "bVI", "bVII"), ("i", "bVI", "iv", "V"), ("i", "iv", "bVI", "v")),
    major_loops=(("I", "V", "vi", "IV"), ("I", "IV", "vi", "V")),
    chords=Part("pad", 0.40, 55, ("X...............",), 0.2),
    bass=Part("808", 0.72, 28, ("X.....X...X.....", "X..X......X...x.", "X.........X..X..",
        "X.....x.........X..x......x....."), 0.0, energy=0.4, ducked=False),
    lead=Part("bells", 0.43, 69, send=0.3, pan=0.1),
    drums=(
        Drum("trap kick", ("X.....X...X.....", "X..X......X...x.", "X.........X..X.."), 0.46, send=0.0, energy=0.4),
        Drum("trap snare", ("........X.......",), 0.40, send=0.15),
        Drum("clap", ("........X.......",), 0.23, energy=0.6, send=0.2),
        Drum("hat", ("x.x.x.x.x.x.x.rr", "x.x.xrx.x.x.x.xxx.x.x.x.xrx.rrr.", "xxx.x.xrx.x.xxx."), 0.24, 0.15),
        Drum("open hat", ("..........x.....", "......x........."), 0.16, -0.25, 0.6),
        Drum("rim", ("...o......o..o..", "..o....o......o."), 0.19, -0.4, 0.7, 0.3),
    ),
    bass_style="trap", lead_density=0.62, lead_energy=0.0, fill="hats", echo_beats=0.75,
    intro=frozenset({"chords", "lead", "pad"}), duck=0.25, reverb_seconds=1.7,
    lead_alternates=("bells", "piano", "flute", "pluck"), chord_alternates=("pad", "choir", "strings"),
)
_LOFI = Style(
    name="lo-fi", gain=2.0, bpm=(70, 86), minor_share=0.5,
    minor_loops=(("i9", "iv9", "bVII9", "bIIImaj7"), ("i9", "iv9", "bVImaj7", "V7"), ("iim7b5", "V7", "i9",
        "i9")),
    major_loops=(("IVmaj7", "iii7", "ii9", "Imaj9"), ("ii9", "V13", "Imaj9", "vi7"), ("Imaj9", "vi9", "ii9", "V9")),
    chords=Part("epiano", 0.72, 53, ("X.......o.......", "X.....x.........", "X..o......x....."), 0.25, -0.1, 0.95),
    bass=Part("soft bass", 0.57, 31, ("X.........x.....", "X......x..x....."), 0.0, gate=0.9, energy=0.3,
        ducked=True),
    lead=Part("guitar", 0.40, 64, send=0.35, pan=0.25),
    drums=(
        Drum("soft kick", ("X......o..X.....", "X.....x...x.....", "X..o......X....."), 0.61, send=0.02),
        Drum("lofi snare", ("....X.......X...", "....X.......X..o"), 0.41, send=0.16),
        Drum("soft hat", ("x.o.x.o.x.o.x.o.", "x.x.o.x.x.o.x.xo"), 0.23, 0.2),
        Drum("rim", (".......o......o.",), 0.18, -0.35, 0.7, 0.2),
    ),
    rootless=True, bass_style="groove", lead_density=0.35, swing=0.3, human_seconds=0.009, duck=0.3,
    crash=False, echo_beats=0.75, reverb_seconds=1.4, texture="vinyl", texture_gain=0.0119,
    lead_alternates=("guitar", "piano", "flute", "bells"), chord_alternates=("epiano", "epiano", "piano"),
)
_HOUSE = Style(
    name="house", gain=1.2, bpm=(120, 127), minor_share=0.75,
    minor_loops=(("i7", "iv7", "bVII7", "v7"), ("i9", "bVImaj7", "bIIImaj7", "bVII"), ("i7", "i7", "iv7", "v7")),
    major_loops=(("Imaj7", "vi7", "IVmaj7", "V"), ("IVmaj9", "V6", "Imaj9", "vi7")),
    chords=Part("stab", 0.54, 55, ("X..x..x...x..x..", "..X..x....X..x..", "X..X..X...x.x..."), 0.25, gate=0.6),
    bass=Part("synth bass", 0.58, 31, ("..X...X...X...X.", "..X...X.x.X...xX", "..X..xX...X..xX."), 0.0, gate=0.75,
        energy=0.3),
    lead=Part("pluck", 0.34, 67, send=0.3, pan=-0.15),
    pad=Part("pad", 0.27, 55, send=0.2),
    drums=(
        Drum("house kick", ("X...X...X...X...",), 0.56, energy=0.2, send=0.0),
        Drum("clap", ("....X.......X...",), 0.48, energy=0.4, send=0.15),
        Drum("open hat", ("..X...X...X...X.",), 0.23, 0.1, 0.3),
        Drum("hat", ("x.oxx.oxx.oxx.ox", "xoxoxoxoxoxoxoxo"), 0.12, 0.2, 0.5),
        Drum("shaker", ("oxoXoxoXoxoXoxoX",), 0.13, -0.3, 0.7),
        Drum("rim", ("...o..o....o..o.", "......o..o....o."), 0.14, -0.45, 0.8, 0.25),
    ),
    bass_style="octaves", lead_density=0.45, swing=0.1, duck=0.62, echo_beats=0.75,
    intro=frozenset({"chords", "house kick", "hat", "pad"}), reverb_seconds=1.4,
    lead_alternates=("pluck", "synth", "piano"), chord_alternates=("stab", "stab", "organ", "piano"),
)
_TECHNO = Style(
    name="techno", gain=1.2, bpm=(128, 138), minor_share=1.0,
    minor_loops=(("i", "i", "i", "bII"), ("i", "i", "bVI", "i"), ("i7", "i7", "iv7", "i7")),
    major_loops=(("I", "I", "bVII", "I"), ("I", "I", "IV", "I")),
    chords=Part("stab", 0.48, 53, ("...X.....x......", "......X..x......", "..x..X.......x.."), 0.4, gate=0.5,
        energy=0.5),
    bass=Part("rumble", 0.65, 28, (".xXx.xXx.xXx.xXx", "..Xx..Xx..Xx..Xx"), 0.0, gate=0.9, energy=0.3),
    lead=Part("acid bass", 0.33, 48, send=0.25, pan=0.1),
    pad=Part("warm pad", 0.19, 50, send=0.3),
    drums=(
        Drum("techno kick", ("X...X...X...X...",), 0.58, energy=0.0, send=0.0),
        Drum("open hat", ("..X...X...X...X.",), 0.24, 0.05, 0.3),
        Drum("hat", ("oxoxoxoxoxoxoxox", "xoxxxoxxxoxxxoxx"), 0.14, -0.2, 0.2),
        Drum("clap", ("....x.......x...", "............X..."), 0.34, energy=0.6, send=0.25),
        Drum("ride", ("..x...x...x...x.", "x.x.x.x.x.x.x.x."), 0.12, 0.3, 0.8),
        Drum("tom low", ("...o..o....o....", ".......o..o..o.."), 0.22, -0.3, 0.5, 0.2),
    ),
    bass_style="root", lead_density=0.85, duck=0.7, echo_beats=0.75, fill="snare",
    intro=frozenset({"techno kick", "hat", "pad"}), reverb_seconds=2.0,
    lead_alternates=("acid bass", "pluck"), chord_alternates=("stab",),
)
_DNB = Style(
    name="drum and bass", gain=1.2, bpm=(172, 176), minor_share=0.9,
    minor_loops=(("i", "bVI", "bVII", "i"), ("i9", "i9", "bVImaj7", "v7"), ("i", "iv", "bVI", "V")),
    major_loops=(("I", "V", "vi", "IV"), ("Imaj7", "V", "vi7", "IVmaj7")),
    chord_bars=2,
    chords=Part("pad", 0.36, 55, ("X...............................",), 0.3),
    bass=Part("reese", 0.57, 29, ("X.........x..x..x...............", "X.....x...X.....X.........x.x..."), 0.0,
        gate=0.92, energy=0.4),
    lead=Part("pluck", 0.42, 67, send=0.4, pan=0.15),
    drums=(
        Drum("kick", ("X.........X.....", "X.x.......xX....", "X.........X.....X..x......X....."), 0.54, send=0.0,
            energy=0.4),
        Drum("break snare", ("....X.......X...", "....X..o.o..X..o", "....X..o.o..X.......X..o.o..X.ox"), 0.48,
            send=0.1, energy=0.4),
        Drum("hat", ("x.x.x.x.x.x.x.x.", "xox.xoxxxox.xoxo"), 0.21, 0.2, 0.2),
        Drum("ride", ("x...x...x...x...", "..x...x...x...x."), 0.13, -0.25, 0.75),
        Drum("shaker", ("xoxoxoxoxoxoxoxo",), 0.12, -0.35, 0.5),
    ),
    bass_style="root", lead_density=0.4, duck=0.4, human_seconds=0.002, echo_beats=1.5,
    intro=frozenset({"chords", "hat", "lead", "shaker"}), reverb_seconds=1.9,
    lead_alternates=("pluck", "piano", "bells", "flute"), chord_alternates=("pad", "strings", "choir"),
)
_ROCK = Style(
    name="rock", gain=1.2, bpm=(112, 138), minor_share=0.5,
    minor_loops=(("i5", "i5", "bVI5", "bVII5"), ("i5", "bVII5", "bVI5", "bVII5"), ("i5", "bIII5", "bVII5", "i5")),
    major_loops=(("I5", "V5", "vi5", "IV5"), ("I5", "bVII5", "IV5", "I5"), ("I5", "IV5", "vi5", "V5")),
    chords=Part("distorted guitar", 0.48, 40, ("X.x.x.x.X.x.x.x.", "X.....x.X...x.x.", "X...x.x.x.x.X..."), 0.1,
        gate=0.92, ducked=False),
    bass=Part("bass", 0.60, 28, (_EIGHTHS, "X.x.x.x.x.x.x.xx"), 0.0, gate=0.85, energy=0.3, ducked=False),
    lead=Part("lead guitar", 0.32, 62, send=0.3, pan=0.15),
    drums=(
        Drum("kick", ("X.....x.X.......", "X.......X.x.....", "X.x.....X.x....x"), 0.62, energy=0.3, send=0.04),
        Drum("rock snare", ("....X.......X...",), 0.44, energy=0.4, send=0.16),
        Drum("hat", (_EIGHTHS,), 0.19, 0.3, 0.2),
        Drum("ride", (_EIGHTHS,), 0.14, -0.3, 0.85),
    ),
    chord_style="power", bass_style="root", lead_density=0.5, human_seconds=0.004, fill="toms",
    intro=frozenset({"chords", "hat"}), reverb_seconds=0.9, lead_energy=0.75, echo_beats=0.5,
)
_POP = Style(
    name="pop", gain=1.5, bpm=(98, 118), minor_share=0.35,
    minor_loops=(("i", "bVI", "bVII", "i"), ("i", "iv", "bVI", "bVII"), ("i", "bVI", "bIII", "V")),
    major_loops=(("I", "V", "vi", "IV"), ("I", "vi", "IV", "V"), ("I", "iii", "IV", "V")),
    chords=Part("piano", 0.64, 55, ("X...x...x...x...", "X..x..x.X..x..x.", "X.......x..x...."), 0.18, -0.1, 0.9),
    bass=Part("synth bass", 0.58, 31, ("X..x..x.X..x..x.", "X.x.x.x.X.x.x.x."), 0.0, gate=0.85, energy=0.3),
    lead=Part("synth", 0.42, 67, send=0.3, pan=0.1),
    pad=Part("pad", 0.23, 55, send=0.2),
    drums=(
        Drum("kick", ("X.....x.X.......", "X......xX.x.....", "X...X...X...X..."), 0.56, energy=0.3, send=0.01),
        Drum("snare", ("....X.......X...",), 0.43, energy=0.4, send=0.16),
        Drum("clap", ("....x.......x...",), 0.19, energy=0.75, send=0.16),
        Drum("hat", (_EIGHTHS, "X.x.x.xxX.x.x.x."), 0.19, 0.22, 0.2),
        Drum("shaker", ("xoXoxoXoxoXoxoXo",), 0.11, -0.3, 0.75),
    ),
    bass_style="root", lead_density=0.5, duck=0.3, human_seconds=0.003, fill="toms", echo_beats=0.75,
    lead_alternates=("synth", "pluck", "bells"), chord_alternates=("piano", "guitar", "epiano"),
)
_JAZZ = Style(
    name="jazz", gain=1.4, bpm=(112, 160), minor_share=0.35,
    minor_loops=(("iim7b5", "V7b9", "i6", "i6"), ("i7", "iv7", "iim7b5", "V7b9"), ("i7", "iv7", "bVII9", "V7b9")),
    major_loops=(("ii7", "V13", "Imaj9", "vi7"), ("Imaj7", "vi7", "ii9", "V7b9"), ("Imaj7", "VI7b9", "ii9", "V13")),
    chords=Part("piano", 0.48, 53, ("X.....x.........", "..x.....x.......", "......X.......x.",
        "X.........x....."), 0.2, -0.25, 0.45),
    bass=Part("upright bass", 0.64, 29, ("X...x...x...x...",), 0.04, gate=0.95, ducked=False),
    lead=Part("brass", 0.28, 62, send=0.3, pan=0.2),
    drums=(
        Drum("ride", ("X...x.x.X...x.x.", "X...x.x.X...x...", "X.x.x...X...x.x."), 0.22, 0.3, 0.2, 0.1),
        Drum("pedal hat", ("....X.......X...",), 0.17, -0.25, 0.2),
        Drum("soft kick", ("o...o...o...o...", "o.......o......."), 0.32, send=0.05),
        Drum("brush", ("....o.......o...", "......o.......o.", "..o...o.....o..."), 0.24, -0.1, 0.4, 0.15),
        Drum("rim", ("......o.........", "..............o."), 0.15, -0.2, 0.8, 0.15),
    ),
    rootless=True, bass_style="walking", lead_density=0.6, swing=0.33, swing_eighths=True, human_seconds=0.007,
    fill="snare", crash=False, intro=frozenset({"chords", "bass", "ride"}), reverb_seconds=1.2,
    lead_alternates=("brass", "piano", "flute", "guitar"),
)
_CLASSICAL = Style(
    name="classical", gain=1.3, bpm=(72, 104), minor_share=0.5,
    minor_loops=(("i", "iv", "V7", "i"), ("i", "bVI", "iv", "V"), ("i", "bVII", "bIII", "V7"), ("i", "iim7b5",
        "V7", "i")),
    major_loops=(("I", "IV", "V7", "I"), ("I", "vi", "ii", "V7"), ("I", "V", "vi", "IV"), ("I", "ii7", "V7", "I")),
    chords=Part("piano", 0.40, 55, ("XoxoXoxoXoxoXoxo", "X.x.x.x.X.x.x.x."), 0.35, -0.15, 1.6),
    bass=Part("strings", 0.24, 36, ("X...............",), 0.25),
    lead=Part("strings", 0.30, 67, send=0.35, pan=0.12),
    pad=Part("strings", 0.17, 53, send=0.3, energy=0.4),
    chord_style="arpeggio", bass_style="root", lead_density=0.32, lead_energy=0.4, human_seconds=0.006, fill="none",
    intro=frozenset({"chords", "pad"}), crash=False, reverb_seconds=2.2, reverb_gain=0.6,
    lead_alternates=("strings", "flute", "piano"), chord_alternates=("piano", "piano", "harp"),
)
_AMBIENT = Style(
    name="ambient", gain=1.3, bpm=(60, 80), minor_share=0.5,
    minor_loops=(("i9", "bVImaj7", "bIIIadd9", "bVIIsus4"), ("iadd9", "ivadd9", "bVImaj7", "i9")),
    major_loops=(("Iadd9", "IVmaj7", "vi9", "IVmaj9"), ("Imaj9", "iii7", "IVmaj9", "Iadd9")),
    chord_bars=2,
    chords=Part("warm pad", 0.30, 50, ("X...............................",), 0.5),
    bass=Part("soft bass", 0.30, 33, ("X...............................",), 0.1, energy=0.2),
    lead=Part("bells", 0.16, 69, send=0.7, pan=0.2),
    pad=Part("choir", 0.15, 57, send=0.5, energy=0.4),
    bass_style="root", lead_density=0.18, lead_energy=0.0, fill="none", crash=False, echo_beats=1.5,
    intro=frozenset({"chords", "texture", "pad", "lead"}), reverb_seconds=3.0, reverb_gain=0.8,
    texture="air", texture_gain=0.02, lead_alternates=("bells", "piano", "flute", "harp"),
)

STYLES: Final[dict[str, Style]] = {
    style.name: style
    for style in (
        _HIP_HOP, _TRAP, _LOFI, _HOUSE, _TECHNO, _DNB, _ROCK, _POP, _JAZZ, _CLASSICAL, _AMBIENT,
    )
}

DEFAULT_GENRE: Final = "pop"
