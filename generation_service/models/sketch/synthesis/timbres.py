"""The timbres of the instruments that are made by `tone_synthesis.render_tone`."""

from __future__ import annotations

from typing import Final

from generation_service.models.sketch.synthesis.tone_synthesis import Timbre

# Resonances of bodies: frequency in Hz, gain in dB, width in octaves.
_GUITAR_BODY: Final = ((105.0, 5.0, 0.25), (215.0, 4.0, 0.3), (420.0, 2.0, 0.4), (3200.0, 2.0, 0.6))
_VIOLIN_BODY: Final = ((285.0, 4.0, 0.25), (480.0, 5.0, 0.3), (1000.0, 3.0, 0.4), (2600.0, 7.0, 0.5))
_SAX_BORE: Final = ((520.0, 6.0, 0.5), (1250.0, 5.0, 0.4), (2700.0, 3.0, 0.4))
_TRUMPET_BELL: Final = ((1250.0, 7.0, 0.6), (2400.0, 4.0, 0.4))
_BANJO_HEAD: Final = ((520.0, 7.0, 0.4), (1100.0, 5.0, 0.4), (2900.0, 3.0, 0.5))
_PIANO_BOARD: Final = ((130.0, 2.0, 0.6), (950.0, -2.0, 0.8), (2400.0, 2.5, 0.7))
_CABINET: Final = ((120.0, 3.0, 0.5), (450.0, -3.0, 0.6), (2600.0, 5.0, 0.6))

KEYS: Final[dict[str, Timbre]] = {
    "piano": Timbre(
        tilt=1.25, decay=1.0, damping=0.9, cutoff=(3600, 1500), cutoff_rate=3.0, attack=0.0015, release=0.18,
        voices=(-0.51, 0.45), breath=0.45, pick=0.12, aftersound=0.3, tracking=0.45, formants=_PIANO_BOARD,
        dynamics=0.8,
    ),
    "epiano": Timbre(
        partials=(1.0, 0.34, 0.06, 0.03, 0.02, 0.015, 0.10, 0.05, 0.02, 0.0, 0.03), decay=0.7, damping=1.9,
        attack=0.002, release=0.16, voices=(-2.5, 2.5), drive=0.45, breath=0.12, tracking=0.3, dynamics=0.9,
        tremolo=(4.6, 0.16), aftersound=0.2, cutoff=(5200, 3000),
    ),
    "organ": Timbre(
        partials=(1.0, 0.8, 0.5, 0.5, 0.0, 0.3, 0.0, 0.3), attack=0.006, release=0.05, voices=(-5.0, 5.0),
        vibrato=7.0, drive=0.5, breath=0.25, tremolo=(6.3, 0.14), dynamics=0.2,
    ),
    "clav": Timbre(
        tilt=0.7, decay=2.2, damping=0.5, cutoff=(4600, 1900), cutoff_rate=9.0, resonance=0.5, attack=0.0015,
        release=0.03, pick=0.11, breath=0.4, voices=(-0.45, 0.45), drive=0.4, dynamics=0.9,
    ),
    "harp": Timbre(
        tilt=1.5, decay=1.2, damping=1.5, attack=0.0015, release=0.7, voices=(-0.3, 0.3), breath=0.25, pick=0.3,
        tracking=0.5, aftersound=0.25, formants=((200.0, 3.0, 0.5),), dynamics=0.7,
    ),
}  # fmt: skip

STRINGS: Final[dict[str, Timbre]] = {
    "guitar": Timbre(
        tilt=1.05, decay=1.2, damping=1.7, cutoff=(4300, 1600), cutoff_rate=6.0, attack=0.0015, release=0.1,
        voices=(-0.6, 0.6), breath=0.45, pick=0.18, formants=_GUITAR_BODY, aftersound=0.15, dynamics=0.8,
    ),
    "nylon guitar": Timbre(
        tilt=1.45, decay=1.4, damping=1.7, cutoff=(2800, 1100), cutoff_rate=7.0, attack=0.002, release=0.1,
        voices=(-0.45, 0.45), breath=0.5, pick=0.27, formants=_GUITAR_BODY, aftersound=0.15, dynamics=0.8,
    ),
    "steel guitar": Timbre(
        tilt=0.85, decay=0.9, damping=0.9, cutoff=(6200, 2600), cutoff_rate=5.0, attack=0.001, release=0.12,
        voices=(-0.9, 0.75), breath=0.6, pick=0.14, formants=_GUITAR_BODY, aftersound=0.25, dynamics=0.9,
    ),
    "clean guitar": Timbre(
        tilt=0.95, decay=1.0, damping=0.8, cutoff=(4200, 2200), cutoff_rate=5.0, attack=0.0015, release=0.07,
        voices=(-1.5, 1.5), breath=0.3, pick=0.22, formants=((2300.0, 4.0, 0.6),), drive=0.35, dynamics=0.8,
    ),
    "muted guitar": Timbre(
        tilt=0.9, decay=14.0, damping=3.0, cutoff=(2600, 900), cutoff_rate=20.0, attack=0.001, release=0.02,
        voices=(-0.6, 0.6), breath=0.9, pick=0.2, formants=((2100.0, 4.0, 0.6),), dynamics=0.8,
    ),
    "distorted guitar": Timbre(
        tilt=0.9, decay=0.35, damping=0.3, cutoff=(6000, 4000), attack=0.0025, release=0.05, voices=(-7.0, 7.0),
        drive=5.0, breath=0.3, pick=0.16, formants=_CABINET, dynamics=0.4,
    ),
    "lead guitar": Timbre(
        tilt=1.0, decay=0.28, damping=0.2, cutoff=(5000, 3500), attack=0.004, release=0.09, voices=(-1.0, 1.0),
        drive=3.2, vibrato=24.0, breath=0.25, pick=0.21, formants=_CABINET, dynamics=0.5,
    ),
    "banjo": Timbre(
        tilt=0.75, decay=3.4, damping=0.9, cutoff=(5600, 2400), cutoff_rate=8.0, attack=0.001, release=0.06,
        voices=(-0.6, 0.6), breath=0.8, pick=0.09, formants=_BANJO_HEAD, aftersound=0.12, dynamics=0.7,
    ),
    "fiddle": Timbre(
        tilt=1.0, cutoff=(3800, 5200), cutoff_rate=5.0, attack=0.045, release=0.09, voices=(-0.9, 0.9), vibrato=20.0,
        air=0.16, formants=_VIOLIN_BODY, dynamics=0.7,
    ),
}  # fmt: skip

WINDS: Final[dict[str, Timbre]] = {
    "brass": Timbre(
        tilt=0.9, cutoff=(800, 2900), cutoff_rate=14.0, attack=0.03, release=0.09, voices=(-6.0, 6.0), vibrato=6.0,
        formants=_TRUMPET_BELL, dynamics=1.0,
    ),
    "trumpet": Timbre(
        tilt=0.8, cutoff=(1300, 4200), cutoff_rate=22.0, attack=0.02, release=0.07, voices=(-0.45, 0.45), vibrato=10.0,
        breath=0.15, air=0.03, formants=_TRUMPET_BELL, dynamics=1.0,
    ),
    "sax": Timbre(
        tilt=0.85, even=0.8, cutoff=(1700, 3300), cutoff_rate=16.0, attack=0.028, release=0.08, voices=(-0.6, 0.6),
        vibrato=14.0, breath=0.35, air=0.10, formants=_SAX_BORE, drive=0.5, dynamics=0.9,
    ),
    "flute": Timbre(
        partials=(1.0, 0.32, 0.14, 0.05, 0.02), attack=0.05, release=0.1, voices=(-0.6, 0.6), vibrato=16.0, breath=0.5,
        air=0.22, dynamics=0.6,
    ),
}  # fmt: skip

SYNTHS: Final[dict[str, Timbre]] = {
    "synth": Timbre(
        spread=0.6, tilt=1.0, cutoff=(5200, 1800), cutoff_rate=5.0, resonance=0.5, attack=0.006, release=0.14,
        voices=(-9.0, 8.0, -2.0, 3.0), vibrato=6.0,
    ),
    "supersaw": Timbre(
        spread=1.0, tilt=0.95, cutoff=(9000, 5200), cutoff_rate=3.0, attack=0.006, release=0.16,
        voices=(-17.0, 16.0, -9.0, 8.0, -1.0, 2.0),
    ),
    "square lead": Timbre(
        spread=0.6, tilt=1.0, even=0.12, cutoff=(5600, 3000), cutoff_rate=4.0, resonance=0.3, attack=0.008,
        release=0.12,
        voices=(-6.0, 6.0), vibrato=12.0,
    ),
    "synth brass": Timbre(
        spread=0.6, tilt=0.95, cutoff=(900, 4200), cutoff_rate=9.0, resonance=0.35, attack=0.02, release=0.22,
        voices=(-9.0, 9.0, -3.0, 3.0), dynamics=0.8,
    ),
    "pluck": Timbre(
        spread=0.6, tilt=1.0, decay=2.8, cutoff=(5600, 500), cutoff_rate=9.0, resonance=0.5, attack=0.002, release=0.14,
        voices=(-8.0, 8.0), dynamics=0.9,
    ),
    "stab": Timbre(
        spread=0.6, tilt=1.0, decay=2.2, cutoff=(4400, 700), cutoff_rate=8.0, resonance=0.25, attack=0.003,
        release=0.12,
        voices=(-11.0, 11.0, -3.0, 3.0), dynamics=0.8,
    ),
}  # fmt: skip

BASSES: Final[dict[str, Timbre]] = {
    "bass": Timbre(
        tilt=1.4, decay=1.0, damping=1.6, cutoff=(1600, 650), cutoff_rate=7.0, attack=0.003, release=0.05, drive=0.6,
        breath=0.18, pick=0.22, dynamics=0.8,
    ),
    "pick bass": Timbre(
        tilt=1.1, decay=1.1, damping=1.0, cutoff=(2900, 1000), cutoff_rate=9.0, attack=0.002, release=0.04, drive=0.9,
        breath=0.4, pick=0.13, dynamics=0.7,
    ),
    "slap bass": Timbre(
        tilt=0.95, decay=1.7, damping=1.3, cutoff=(4600, 700), cutoff_rate=16.0, resonance=0.3, attack=0.0015,
        release=0.04, drive=0.8, breath=0.7, pick=0.09, dynamics=1.0,
    ),
    "upright bass": Timbre(
        tilt=1.6, decay=1.6, damping=2.4, cutoff=(1300, 480), cutoff_rate=9.0, attack=0.005, release=0.07, breath=0.4,
        pick=0.3, formants=((110.0, 3.0, 0.4), (240.0, 3.0, 0.4)), aftersound=0.15, dynamics=0.8,
    ),
    "synth bass": Timbre(
        tilt=1.0, decay=0.6, cutoff=(2100, 280), cutoff_rate=11.0, resonance=0.7, attack=0.002, release=0.04,
        drive=0.9, dynamics=0.8,
    ),
    "saw bass": Timbre(
        tilt=1.0, decay=0.5, cutoff=(1900, 700), cutoff_rate=8.0, resonance=0.4, attack=0.003, release=0.05,
        drive=0.8, voices=(-5.0, 5.0), dynamics=0.7,
    ),
    "acid bass": Timbre(
        tilt=1.0, decay=2.5, cutoff=(2600, 240), cutoff_rate=14.0, resonance=2.4, attack=0.002, release=0.03,
        drive=1.1, dynamics=1.0,
    ),
    "rumble": Timbre(
        tilt=1.6, decay=1.5, cutoff=(320, 140), cutoff_rate=6.0, attack=0.006, release=0.04, drive=1.0,
    ),
    "reese": Timbre(
        spread=0.5, tilt=1.0, cutoff=(520, 1000), cutoff_rate=2.5, resonance=0.4, attack=0.006, release=0.05,
        voices=(-15.0, 16.0), drive=1.0,
    ),
    "soft bass": Timbre(tilt=2.2, decay=0.25, cutoff=(600, 400), attack=0.012, release=0.15, drive=0.4),
    "dub bass": Timbre(
        tilt=2.0, decay=0.5, cutoff=(520, 260), cutoff_rate=6.0, attack=0.006, release=0.09, drive=0.7, breath=0.08,
    ),
    "sub": Timbre(partials=(1.0, 0.10, 0.03), attack=0.006, release=0.06, drive=0.5, dynamics=0.0),
}  # fmt: skip

TIMBRES: Final[dict[str, Timbre]] = {**KEYS, **STRINGS, **WINDS, **SYNTHS, **BASSES}
