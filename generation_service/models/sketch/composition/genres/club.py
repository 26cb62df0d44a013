"""House, techno and trance."""

from __future__ import annotations

from typing import Final

from generation_service.models.sketch.composition.style import Drum, Part, Style

# fmt: off
HOUSE: Final = Style(
    name="house", gain=1.2, bpm=(120, 127), minor_share=0.75, form="club", one_loop=True, risers=True,
    minor_loops=(("i7", "iv7", "bVII7", "v7"), ("i9", "bVImaj7", "iv7", "v7"), ("i7", "i7", "iv7", "v7"),
        ("i9", "i9", "bVImaj7", "bVII")),
    major_loops=(("Imaj7", "vi7", "IVmaj7", "V"), ("Imaj9", "IVmaj9", "Imaj9", "V6"), ("Imaj7", "iii7", "IVmaj7", "V")),
    chords=Part("stab", 0.52, 53, ("X..x..x...x..x..", "..X..x....X..x..", "X..X..X...x.x...", "..x..x.x..x..x.x"),
        0.25,
        gate=0.6, voicing="close", alternates=("stab", "stab", "organ", "piano", "epiano"), echo=0.1),
    bass=Part("synth bass", 0.58, 31, ("..X...X...X...X.", "..X...X.x.X...xX", "..X..xX...X..xX.", "x.X..xX.x.X..xX."),
        0.0,
        gate=0.75, energy=0.3, pattern="octaves"),
    lead=Part("pluck", 0.32, 65, send=0.3, pan=-0.15, alternates=("pluck", "synth", "piano", "vibraphone"), echo=0.35),
    pad=Part("pad", 0.24, 55, send=0.2, voicing="open"),
    figure=Part("pluck", 0.17, 67, ("x..x..x.x..x..x.", "..x.x..x..x.x..x"), 0.3, 0.4, 0.5, energy=0.85, pattern="wave",
        voicing="triad", alternates=("pluck", "marimba", "bells"), echo=0.3),
    cells=("..X..x..x.....x.", "X..x..x..._.....", "..x...x.X..x....", "....x.x...x.x...", "X.....x...x....."),
    drums=(
        Drum("house kick", ("X...X...X...X...",), 0.56, energy=0.2, send=0.0),
        Drum("clap", ("....X.......X...",), 0.48, energy=0.4, send=0.15),
        Drum("open hat", ("..X...X...X...X.",), 0.23, 0.1, 0.3),
        Drum("hat", ("x.oxx.oxx.oxx.ox", "xoxoxoxoxoxoxoxo", "o.oxo.oxo.oxo.ox"), 0.12, 0.2, 0.5),
        Drum("shaker", ("oxoXoxoXoxoXoxoX",), 0.13, -0.3, 0.7),
        Drum("rim", ("...o..o....o..o.", "......o..o....o."), 0.14, -0.45, 0.8, 0.25),
        Drum("conga high", ("..o..o....o..o..", "...o..x....o..x."), 0.13, 0.45, 0.88, 0.2),
    ),
    lead_energy=0.6, scale="pentatonic", swing=0.12, duck=0.62, echo_beats=0.75, fill="stop", close_colour="7",
    cadence=("v7", "V"), intro=frozenset({"chords", "house kick", "hat"}),
    breakdown=frozenset({"chords", "pad", "lead", "shaker"}), reverb_seconds=1.4,
)
TECHNO: Final = Style(
    name="techno", gain=1.2, bpm=(128, 138), minor_share=1.0, form="club", one_loop=True, risers=True,
    minor_loops=(("i", "i", "i", "v"), ("i", "i", "bVI", "i"), ("i7", "i7", "iv7", "i7"), ("i", "i", "iv", "i")),
    major_loops=(("I", "I", "bVII", "I"), ("I", "I", "IV", "I")),
    chords=Part("stab", 0.44, 53, ("...X.....x......", "......X..x......", "..x..X.......x..", "...X..x........."),
        0.4, gate=0.5,
        energy=0.5, voicing="close", echo=0.4),
    bass=Part("rumble", 0.65, 28, (".xXx.xXx.xXx.xXx", "..Xx..Xx..Xx..Xx", ".xX..xXx.xX..xXx"), 0.0, gate=0.9,
        energy=0.3),
    lead=Part("acid bass", 0.31, 46, send=0.25, pan=0.1, alternates=("acid bass", "acid bass", "pluck"), echo=0.2),
    pad=Part("warm pad", 0.19, 50, send=0.3, voicing="open"),
    figure=Part("pluck", 0.15, 60, ("x..x..x..x..x.x.", "x.xx.xx.x.xx.xx.", ".x..x..x..x..x.x"), 0.35, -0.4, 0.4,
        energy=0.8,
        pattern="up", voicing="triad", echo=0.35),
    cells=("X.xxX.x.xX.xx.xX", "xX.xx.Xx.xxX.xx.", "X..xX.xX..xX.xx.", "xxXx.xXx.xX.xxX."),
    drums=(
        Drum("techno kick", ("X...X...X...X...",), 0.58, energy=0.0, send=0.0),
        Drum("open hat", ("..X...X...X...X.",), 0.24, 0.05, 0.3),
        Drum("hat", ("oxoxoxoxoxoxoxox", "xoxxxoxxxoxxxoxx", "ooxoooxoooxoooxo"), 0.14, -0.2, 0.2),
        Drum("clap", ("....x.......x...", "............X...", "....x.......x..o"), 0.34, energy=0.6, send=0.25),
        Drum("ride", ("..x...x...x...x.", "x.x.x.x.x.x.x.x."), 0.12, 0.3, 0.8),
        Drum("tom low", ("...o..o....o....", ".......o..o..o..", "..o..o....o..o.."), 0.22, -0.3, 0.5, 0.2),
    ),
    lead_energy=0.6, lead_hold=2, duck=0.7, echo_beats=0.75, fill="snare", cadence=("i", "I"), ring_seconds=2.0,
    intro=frozenset({"techno kick", "hat", "pad"}), breakdown=frozenset({"pad", "figure", "chords"}),
        reverb_seconds=2.0,
)
TRANCE: Final = Style(
    name="trance", gain=1.1, bpm=(134, 142), minor_share=0.92, form="club", one_loop=True, risers=True,
    minor_loops=(("i", "bVI", "bVII", "i"), ("i", "i", "bVI", "bVII"), ("i", "iv", "bVI", "V"), ("i", "bVI", "iv",
        "v")),
    major_loops=(("I", "V", "vi", "IV"), ("I", "vi", "IV", "V")),
    chords=Part("supersaw", 0.34, 57, ("X.xX.xX.X.xX.xX.", "X.xxX.xxX.xxX.xx", "X..X..X.X..X..X."), 0.3, gate=0.8,
        energy=0.5,
        voicing="open", echo=0.1),
    bass=Part("saw bass", 0.56, 30, ("..X...X...X...X.", "..Xx..Xx..Xx..Xx", ".xXx.xXx.xXx.xXx"), 0.0, gate=0.85,
        energy=0.4),
    lead=Part("supersaw", 0.27, 67, send=0.4, alternates=("supersaw", "supersaw", "synth"), echo=0.4),
    pad=Part("warm pad", 0.2, 55, send=0.4, voicing="open"),
    figure=Part("pluck", 0.25, 64, ("xxxxxxxxxxxxxxxx", "x.xx.xx.x.xx.xx.", "x.xxx.xxx.xxx.xx"), 0.35, -0.3, 0.6,
        pattern="wave",
        voicing="triad", echo=0.4),
    cells=("X.....x.....x...", "X...........x.x.", "X..x..x.........", "X.......x.....x.", "X.....x........."),
    drums=(
        Drum("techno kick", ("X...X...X...X...",), 0.54, energy=0.3, send=0.0),
        Drum("clap", ("....X.......X...",), 0.38, energy=0.5, send=0.2),
        Drum("open hat", ("..X...X...X...X.",), 0.26, 0.05, 0.4),
        Drum("hat", ("xoxoxoxoxoxoxoxo", "x.xxx.xxx.xxx.xx"), 0.13, 0.25, 0.5),
        Drum("ride", ("x.x.x.x.x.x.x.x.",), 0.12, -0.25, 0.85),
        Drum("shaker", ("oxoXoxoXoxoXoxoX",), 0.10, -0.35, 0.6),
    ),
    lead_energy=0.7, lead_hold=12, duck=0.68, echo_beats=0.75, fill="snare", cadence=("V", "V"), ring_seconds=2.4,
    intro=frozenset({"techno kick", "figure", "pad"}), breakdown=frozenset({"pad", "figure", "lead"}),
    reverb_seconds=2.4, reverb_gain=0.6,
)
