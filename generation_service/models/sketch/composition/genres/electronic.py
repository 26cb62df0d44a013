"""Drum and bass, dubstep and synthwave."""

from __future__ import annotations

from typing import Final

from generation_service.models.sketch.composition.style import Drum, Part, Style

# fmt: off
DRUM_AND_BASS: Final = Style(
    name="drum and bass", gain=1.12, bpm=(172, 176), minor_share=0.9, form="club", chord_bars=2, risers=True,
    minor_loops=(("i", "bVI", "bVII", "i"), ("i9", "i9", "bVImaj7", "v7"), ("i", "iv", "bVI", "V"), ("i9", "bVImaj7",
        "i9", "v7")),
    major_loops=(("I", "V", "vi", "IV"), ("Imaj7", "V", "vi7", "IVmaj7")),
    chords=Part("pad", 0.33, 55, ("X...............",), 0.3, voicing="open", alternates=("pad", "strings", "choir")),
    bass=Part("reese", 0.79, 29, ("X.........x..x..x...............", "X.....x...X.....X.........x.x...",
        "X..............xX.....x.....x..."), 0.0, gate=0.92, energy=0.4),
    lead=Part("pluck", 0.45, 65, send=0.4, pan=0.15, alternates=("pluck", "piano", "bells", "flute", "synth"),
        echo=0.4),
    figure=Part("pluck", 0.18, 62, ("x..x..x...x..x..", "..x..x..x..x..x.", "x.....x..x....x."), 0.35, -0.35, 0.5,
        energy=0.8,
        pattern="wave", voicing="triad", alternates=("pluck", "epiano", "marimba"), echo=0.3),
    cells=("X.....x...x.....", "X...............", "..x...x...x.x...", "X..x......x.....", "x.......x.x....."),
    drums=(
        Drum("kick", ("X.........X.....", "X.x.......xX....", "X.........X.....X..x......X.....", "X.....x...X....."),
            0.54, send=0.0,
            energy=0.4),
        Drum("break snare", ("....X..g....X..g", "....X..o.o..X..o", "....X..o.g..X.......X..o.o..X.ox",
            "....X.gg.g..X.gg"), 0.48,
            send=0.1, energy=0.4),
        Drum("hat", ("x.x.x.x.x.x.x.x.", "xox.xoxxxox.xoxo", "xoxoxoxoxoxoxoxo"), 0.21, 0.2, 0.2),
        Drum("ride", ("x...x...x...x...", "..x...x...x...x."), 0.13, -0.25, 0.75),
        Drum("shaker", ("xoxoxoxoxoxoxoxo",), 0.12, -0.35, 0.5),
    ),
    lead_energy=0.5, scale="pentatonic", duck=0.4, human_seconds=0.002, echo_beats=1.5, fill="breaks", ring_seconds=2.0,
    cadence=("V", "V"), intro=frozenset({"chords", "hat", "lead", "shaker"}), reverb_seconds=1.9,
)
DUBSTEP: Final = Style(
    name="dubstep", gain=1.55, bpm=(138, 142), minor_share=1.0, form="club", risers=True,
    minor_loops=(("i", "i", "bVI", "V"), ("i", "i", "iv", "v"), ("i", "bVI", "i", "V"), ("i", "i", "i", "V")),
    major_loops=(("I", "I", "IV", "V"), ("I", "V", "vi", "IV")),
    chords=Part("supersaw", 0.17, 55, ("X...............", "X.........X....."), 0.3, voicing="open", energy=0.5),
    bass=Part("wobble", 0.62, 26, ("X.......x..x....", "X...X...X..x..x.", "X.....x.X...x...", "X..x..x.X......."),
        0.02, gate=0.95,
        energy=0.6, ducked=True, pattern="wobble", alternates=("wobble", "wobble", "growl")),
    lead=Part("bells", 0.30, 67, send=0.45, pan=0.1, alternates=("bells", "piano", "square lead"), echo=0.4),
    pad=Part("choir", 0.14, 55, send=0.4, voicing="open", alternates=("choir", "warm pad", "strings")),
    cells=("X.......x.......", "X.....x...x.....", "....X.......x...", "X..........._...", "x...x...x......."),
    drums=(
        Drum("trap kick", ("X.........x.....", "X.....x.........", "X..x......x.....", "X.........x..x.."), 0.50,
            energy=0.5, send=0.0),
        Drum("dub snare", ("........X.......",), 0.40, energy=0.5, send=0.2),
        Drum("clap", ("........X.......",), 0.22, energy=0.8, send=0.25),
        Drum("hat", ("..x...x...x...x.", "x...x.x.x...x.x.", "..x.x...x.x...rr"), 0.19, 0.2, 0.4),
        Drum("ride", ("....x.......x...",), 0.10, -0.3, 0.85),
        Drum("cross stick", ("...o..o......o..", "......o....o...."), 0.15, -0.4, 0.6, 0.3),
    ),
    lead_energy=0.0, duck=0.45, echo_beats=0.75, fill="stop", cadence=("V", "V"), ring_seconds=2.2, scale="harmonic",
    intro=frozenset({"pad", "lead", "hat"}), breakdown=frozenset({"pad", "lead", "chords"}), reverb_seconds=2.2,
)
SYNTHWAVE: Final = Style(
    name="synthwave", gain=1.10, bpm=(94, 114), minor_share=0.75, form="song",
    minor_loops=(("i", "bVI", "bVII", "i"), ("i", "bVII", "bVI", "v"), ("i", "iv", "bVI", "bVII"), ("i", "i", "bVI",
        "V")),
    major_loops=(("I", "V", "vi", "IV"), ("I", "iii", "IV", "V"), ("I", "IV", "I", "V")),
    chords=Part("synth brass", 0.30, 55, ("X...............", "X.......x.......", "X..x............"), 0.3, -0.2, 0.9,
        energy=0.5,
        voicing="open"),
    bass=Part("saw bass", 0.75, 28, ("X.x.x.x.X.x.x.x.", "X.xxX.xxX.xxX.xx", "xxxxxxxxxxxxxxxx"), 0.0, gate=0.75,
        energy=0.2,
        pattern="pedal"),
    lead=Part("square lead", 0.36, 65, send=0.35, pan=0.1, alternates=("square lead", "synth", "supersaw"), echo=0.4),
    pad=Part("pad", 0.24, 52, send=0.35, voicing="open"),
    figure=Part("pluck", 0.22, 60, ("xxxxxxxxxxxxxxxx", "x.x.x.x.x.x.x.x."), 0.3, 0.4, 0.6, pattern="wave",
        voicing="triad",
        alternates=("pluck", "square lead"), echo=0.3),
    cells=("X.....x...x.....", "X...x...x.....x.", "X.......x...x...", "X..x..x...x.....", "X..........._..."),
    drums=(
        Drum("kick", ("X.......X.......", "X.......X.x.....", "X...X...X...X..."), 0.58, energy=0.3, send=0.01),
        Drum("gated snare", ("....X.......X...",), 0.52, energy=0.4, send=0.3),
        Drum("hat", ("x.x.x.x.x.x.x.x.", "X.x.X.x.X.x.X.x."), 0.17, 0.2, 0.3),
        Drum("open hat", ("..x...x...x...x.", "..............x."), 0.14, -0.2, 0.8),
        Drum("tom mid", ("..............o.", "...........o..o."), 0.22, 0.3, 0.85, 0.25),
    ),
    lead_energy=0.7, lead_hold=10, duck=0.35, echo_beats=0.75, fill="toms", cadence=("V", "V"), ring_seconds=2.6,
    intro=frozenset({"pad", "figure", "bass"}), breakdown=frozenset({"pad", "figure", "chords", "lead"}),
        reverb_seconds=2.2,
    reverb_gain=0.6,
)
