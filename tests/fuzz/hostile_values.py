"""Values of each kind that break programs which expected another one."""

from __future__ import annotations

import math
from random import Random

MEGABYTE = 1 << 20
LARGE = 2000

STRINGS = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\n\r\t",
    "\x1b[31mred\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "\u202egpj.wav\u202c\u2066x\u2069",
    "e\u0301",  # Not normalised.
    "\u212bngstro\u0308m",
    "\ufeffBOM\ufffe\uffff",
    "\U0001f3b5\U0001f468\u200d\U0001f469",
    "\U0010ffff",
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "file:///etc/passwd",
    "%2e%2e%2f%00",
    "%s%n%d{0}{__class__}${HOME}$(id)`id`",
    "'; DROP TABLE generations; --",
    "%_\\%",
    "<script>alert(1)</script>",
    "[bold red]markup[/]",
    '"\\u0000"',
    "nan",
    "-1",
    "1e999",
    "null",
    "x" * 201,
    "x" * 300,
    "x" * 10_001,
    "\u00df" * 10_000,
    "x" * MEGABYTE,
    "00000000-0000-0000-0000-000000000000",
    "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "00000000-0000-0000-0000-00000000000g",
    "00000000000000000000000000000000",
    "{00000000-0000-0000-0000-000000000000}",
    "00000000-0000-0000-0000-000000000000\n",
    "\u0660" * 8 + "-0000-0000-0000-000000000000",  # Digits of another script.
)
FLOATS = (
    math.nan,
    math.inf,
    -math.inf,
    -0.0,
    0.0,
    -1.0,
    5e-324,
    1e-9,
    0.0999999,
    3600.0000001,
    1e9,
    1e308,
    1.7976931348623157e308,
    -1e308,
    2.0**63,
)
INT32 = (0, 1, -1, 2, 3, 5, 7, 127, 128, 255, 256, 32_767, 65_536, 1_000_000, 2**31 - 1, -(2**31))
INT64 = (*INT32, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, -(2**63))
UINT32 = (0, 1, 2**16, 2**31, 2**32 - 1)
BYTES = (
    b"",
    b"\x00",
    b"\xff" * 7,
    b"x" * 65_537,
    b"x" * MEGABYTE,
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff",
)


def string(rng: Random) -> str:
    """Mostly one of the known ones; else a mixture of two, or code points at random."""
    match rng.randrange(8):
        case 0:
            return rng.choice(STRINGS)[:200] + rng.choice(STRINGS)[:200]
        case 1:
            points = (rng.randrange(0x110000) for _ in range(rng.randrange(1, 40)))
            return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
        case _:
            return rng.choice(STRINGS)


def struct_value(rng: Random, depth: int = 0) -> object:
    """A value of JSON, of any kind."""
    match rng.randrange(9 if depth < 4 else 6):
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2:
            return rng.choice(FLOATS)
        case 3 | 4 | 5:
            return string(rng)
        case 6:
            return [struct_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            return {string(rng)[:300]: struct_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def nested(depth: int) -> object:
    """Lists in lists."""
    value: object = []
    for _ in range(depth):
        value = [value]
    return value
