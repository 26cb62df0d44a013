"""Parses a prompt: tempo, key, genre, instruments and mood. There is no randomness."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from generation_service.models.sketch.composition.music_theory import pitch_class
from service_runtime.prompt_tempo import parse_tempo

MIN_BPM: Final = 40.0
MAX_BPM: Final = 240.0

# In order of precedence: in "lo-fi hip hop" or "jazzy house", the more specific word decides the groove.
_GENRES: Final = (
    ("lo-fi", r"lo-?\s?fi|lofi|chill-?hop|study beats?|jazz-?hop|downtempo"),
    ("trap", r"trap|drill|phonk"),
    ("drum and bass", r"drums?\s*(?:and|&|n|'n'?|\+)\s*bass|d\s?(?:&|n)\s?b|dnb|jungle|liquid funk"),
    ("dubstep", r"(?:dub|bro)-?\s?step|riddim|wobble"),
    ("trance", r"(?:psy-?|goa |uplifting |progressive )?trance|eurodance"),
    ("techno", r"techno|acid|minimal electro"),
    ("synthwave", r"synth-?\s?wave|retro-?wave|out-?run|vapor-?wave|synth-?pop|electro-?pop|80s|eighties|new wave"),
    ("house", r"(?:deep |tech |progressive |tropical )?house|edm|disco|dance|club|garage"),
    ("reggae", r"reggae|dub|ska|rock-?steady|dancehall|roots"),
    ("hip hop", r"hip[\s-]?hop|boom[\s-]?bap|rap|trip[\s-]?hop|r\s?&\s?b|rnb|neo[\s-]?soul"),
    ("metal", r"metal|thrash|metalcore|death ?core|djent|doom"),
    ("rock", r"rock|punk|grunge|surf"),
    ("bossa nova", r"bossa(?:[\s-]?nova)?|samba|latin|brazilian"),
    ("funk", r"funk(?:y)?|soul|motown|afrobeat"),
    ("blues", r"blues|bluesy|boogie|shuffle"),
    ("ambient", r"ambient|drone|soundscape|meditation|meditative|new age|atmospheric"),
    ("jazz", r"jazz|bebop|be-bop|swing|big band"),
    ("classical", r"classical|baroque|romantic era|orchestral|symphon\w+|string quartet|sonata|cinematic"),
    ("jazz", r"jazzy"),
    ("folk", r"folk|country|bluegrass|americana|singer[\s-]songwriter|celtic|campfire"),
    ("pop", r"pop|indie"),
)

# Longest first, so that "bass guitar" is a bass, and "electric piano" is not a piano.
_INSTRUMENTS: Final = (
    ("epiano", r"electric pianos?|e-?pianos?|rhodes|wurlitzer|wurli|keys|keyboards?"),
    ("distorted guitar", r"distorted guitars?|electric guitars?|power chords?"),
    ("bass", r"bass guitars?|(?:double|upright|acoustic|synth|sub|reese|electric|walking)[\s-]bass"),
    ("808", r"808s?"),
    ("bass", r"bass|bassline|basslines|sub"),
    ("piano", r"(?:grand |upright )?pianos?"),
    ("clav", r"clavinets?|clav"),
    ("banjo", r"banjos?|mandolins?"),
    ("guitar", r"(?:acoustic |nylon |steel |clean |spanish )?guitars?"),
    ("fiddle", r"fiddles?|solo violin"),
    ("strings", r"strings?|violins?|violas?|cellos?|orchestra"),
    ("choir", r"choirs?|choral"),
    ("pad", r"pads?"),
    ("vibraphone", r"vibraphones?|vibes?"),
    ("marimba", r"marimbas?|xylophones?|steel ?drums?|steel ?pans?"),
    ("kalimba", r"kalimbas?"),
    ("bells", r"bells?|glockenspiel|music box|celesta|chimes?"),
    ("flute", r"flutes?|pan ?pipes?|whistle|clarinet|oboe|woodwinds?"),
    ("organ", r"organs?|hammond"),
    ("sax", r"sax(?:ophones?)?"),
    ("trumpet", r"trumpets?|flugelhorns?"),
    ("brass", r"brass|horns?|trombones?|tubas?"),
    ("harp", r"harps?"),
    ("synth", r"synths?|synthesi[sz]ers?|arps?|arpeggiator|leads?"),
    ("drums", r"drums?|drum kit|drum machine|percussion"),
)

_MOODS: Final = (
    ("dark", r"dark(?:er)?|moody|sinister|ominous|evil|haunting|brooding|gritty|menacing"),
    ("sad", r"sad|melanchol\w+|sorrow\w*|lonely|nostalgic|emotional|heartbreak\w*|tragic|wistful"),
    ("happy", r"happy|joy\w*|uplifting|cheerful|bright|sunny|playful|upbeat|fun|feel-?good"),
    ("chill", r"chill(?:ed|out)?|calm\w*|relax\w*|mellow|peaceful|soft|gentle|smooth|laid[\s-]?back|quiet"),
    ("energetic", r"energetic|energy|driving|aggressive|hard|powerful|intense|heavy|banging|hype|groovy"),
    ("epic", r"epic|heroic|majestic|triumphant|dramatic|grand"),
    ("dreamy", r"dreamy|ethereal|floating|spacey|hazy|lush|airy|atmospheric"),
)

_SLOW: Final = r"slow(?:er|ly)?|slow-tempo|adagio|largo|lento"
_FAST: Final = r"fast(?:er)?|quick|up-?tempo|allegro|presto|rapid|speedy"

_ACCIDENTAL: Final = r"(?:\s*([#♯♭b])|[\s-]+(sharp|flat))?"
_MODE_KEY: Final = re.compile(
    rf"\b(in\s+|key of\s+|key\s*:\s*)?([A-Ga-g]){_ACCIDENTAL}[\s-]*"
    r"(major|minor|maj|min|dorian|phrygian|aeolian|ionian|lydian|mixolydian)\b(?!-?\w)"
    r"(\s+(?:key|mood|mode|feel|tone|tonality|scale|chords?|vibe|sound|hit))?",
    re.IGNORECASE,
)
_SHORT_KEY: Final = re.compile(r"\b([A-G])([#♯♭b]?)m\b(?!')")
_BARE_KEY: Final = re.compile(
    rf"\b(?:[Ii]n|[Kk]ey of|[Kk]ey\s*:)\s+([A-G]){_ACCIDENTAL}(?![\w#♯♭'-])"
    r"(?=\s*(?:$|[,.;:!?)]|(?:at|with|and|for|key)\b|\d))"
)
_MODE_ONLY: Final = re.compile(r"\b(minor|major)\b", re.IGNORECASE)
_MINOR_MODES: Final = frozenset({"minor", "min", "dorian", "phrygian", "aeolian"})

_NEGATION: Final = r"(?:no|without|w/o|minus|not any|lacking)\s+(?:any\s+)?"
_SOLO_BEFORE: Final = r"\b(?:solo|only|just)\s+(?:an?\s+)?(?:\w+\s+)?$"


@dataclass(frozen=True, slots=True)
class ParsedPrompt:
    """What a prompt asks for. None and empty values are unspecified and left to the seed and the genre."""

    genre: str | None = None
    bpm: float | None = None
    tonic: int | None = None
    """Pitch class 0 … 11."""
    tonic_spelling: str | None = None
    minor: bool | None = None
    instruments: tuple[str, ...] = ()
    """Canonical names, in the order of the prompt."""
    excluded: frozenset[str] = frozenset()
    is_solo: bool = False
    """Whether only the named instruments should play ("solo piano")."""
    moods: frozenset[str] = frozenset()
    pace: int = 0
    """-1 slow, +1 fast; used if the prompt gives no tempo in BPM."""


def parse_prompt(prompt: str) -> ParsedPrompt:
    """Parses a prompt. It never fails: unknown words are ignored.

    The tempo is limited to 40 … 240 BPM. Instruments after "no" or "without" are excluded.
    """
    prompt = " ".join(prompt.split())  # Long runs of spaces would take the expressions seconds.
    text = prompt.lower()
    tonic, spelling, minor = _parse_key(prompt)
    genre, rest = _parse_genre(text)
    instruments, excluded, is_solo = _parse_instruments(rest, genre)
    moods = frozenset(name for name, words in _MOODS if _word_pattern(words).search(text))
    if minor is None:
        minor = _mode_from_moods(moods)
    slow, fast = bool(_word_pattern(_SLOW).search(text)), bool(_word_pattern(_FAST).search(text))
    return ParsedPrompt(
        genre=genre,
        bpm=_parse_tempo(prompt),
        tonic=tonic,
        tonic_spelling=spelling,
        minor=minor,
        instruments=instruments,
        excluded=excluded,
        is_solo=is_solo,
        moods=moods,
        pace=int(fast) - int(slow),
    )


def _word_pattern(alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w])")


def _parse_tempo(prompt: str) -> float | None:
    bpm = parse_tempo(prompt)
    return None if bpm is None else min(MAX_BPM, max(MIN_BPM, bpm))


def _parse_key(prompt: str) -> tuple[int | None, str | None, bool | None]:
    """(tonic, its spelling, whether the key is minor), each None if the prompt does not say."""
    for match in _MODE_KEY.finditer(prompt):
        lead_in, letter, sign, word, mode, noun = match.groups()
        # In "a minor setback" and "in a minor key", the letter is an article, not a tonic.
        ends = re.match(r"\s*(?:$|[,.;:!?)])", prompt[match.end() :]) is not None
        if letter == "a" and not sign and not word and (noun or not (lead_in or ends)):
            continue
        name = _spell(letter, sign, word)
        return pitch_class(name), name, mode.lower() in _MINOR_MODES
    if match_short := _SHORT_KEY.search(prompt):
        name = _spell(match_short[1], match_short[2], None)
        return pitch_class(name), name, True
    mode_only = _MODE_ONLY.search(prompt)
    minor = None if mode_only is None else mode_only[1].lower() == "minor"
    if match_bare := _BARE_KEY.search(prompt):
        name = _spell(match_bare[1], match_bare[2], match_bare[3])
        return pitch_class(name), name, minor
    return None, None, minor


def _spell(letter: str, sign: str | None, word: str | None) -> str:
    sharp = sign in ("#", "♯") or (word or "").lower() == "sharp"
    flat = sign in ("b", "♭") or (word or "").lower() == "flat"
    return letter.upper() + ("#" if sharp else "b" if flat else "")


def _parse_genre(text: str) -> tuple[str | None, str]:
    """The genre, and the text without its words, since the "bass" in "drum and bass" is not an instrument."""
    found = None
    for name, words in _GENRES:
        pattern = _word_pattern(words)
        if pattern.search(text):
            found = found or name
            if name in ("drum and bass", "hip hop", "trap", "dubstep"):
                text = pattern.sub(" ", text)
    return found, text


def _parse_instruments(text: str, genre: str | None) -> tuple[tuple[str, ...], frozenset[str], bool]:
    names = "|".join(words for _, words in _INSTRUMENTS)
    negated = re.compile(rf"\b{_NEGATION}((?:{names})(?:\s*(?:,|and|or|nor|/)\s*(?:{names}))*)(?!\w)")
    excluded = {name for span in negated.findall(text) for name, _ in _find_instruments(span)}
    if re.search(r"\b(?:drumless|beatless|no beats?|without beats?)\b", text):
        excluded.add("drums")
    remaining = negated.sub(" ", text)
    wanted = _find_instruments(remaining)
    # "Piano solo" means a piece for piano alone, but a "guitar solo" in a rock song is only a part of it.
    after = "only|alone|solo" if genre in (None, "classical", "ambient") else "only|alone"
    is_solo = any(re.search(_SOLO_BEFORE, remaining[max(0, at - 40) : at]) for _, at in wanted) or bool(
        re.search(rf"(?:{names})\s+(?:{after})\b|\bunaccompanied\b", remaining)
    )
    ordered = dict.fromkeys(name for name, _ in sorted(wanted, key=lambda item: item[1]))
    return tuple(ordered), frozenset(excluded) - ordered.keys(), is_solo and bool(ordered)


def _find_instruments(text: str) -> list[tuple[str, int]]:
    found = []
    for name, words in _INSTRUMENTS:
        pattern = _word_pattern(words)
        for match in pattern.finditer(text):
            found.append((name, match.start()))
        text = pattern.sub(lambda match: " " * len(match[0]), text)
    return found


def _mode_from_moods(moods: frozenset[str]) -> bool | None:
    if moods & {"dark", "sad"}:
        return True
    return False if "happy" in moods else None
