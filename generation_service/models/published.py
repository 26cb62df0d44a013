"""The models that are published and can be downloaded by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_META_LICENCE = "CC-BY-NC-4.0"
"""SPDX identifier of the licence of Meta's published weights."""
AUDIOCRAFT_FILES = ("state_dict.bin", "compression_state_dict.bin")
DIFFUSERS_FILES = (
    "model_index.json",
    "README.md",
    "LICENSE*",
    "*/*.json",
    "*/*.txt",
    "*/*.model",
    "*/*.jinja",
    "*/*.safetensors",
)
"""The card, the configurations, the tokenizers and the weights; not what the repository has in other layouts."""
SEPARATOR = "adefossez/HTDemucs"
"""The repository of the network that separates the parts of a clip. It is optional."""
_STABILITY_LICENCE = "LicenseRef-stable-audio-community"


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A repository on the Hugging Face hub that holds a model."""

    repository: str
    licence: str
    """SPDX identifier."""
    files: tuple[str, ...] = AUDIOCRAFT_FILES
    """Patterns of the files to download."""
    requires: tuple[str, ...] = ()
    """Repositories of networks that the model uses and its files do not name."""
    follows_melodies: bool = False
    """Whether it hears the melody of a clip better if demucs separates its parts."""

    @property
    def is_noncommercial(self) -> bool:
        """Whether neither the weights nor the output may be used commercially."""
        return "-NC-" in self.licence


def _meta(*names: str, requires: tuple[str, ...] = (), follows_melodies: bool = False) -> dict[str, PublishedModel]:
    return {
        name: PublishedModel(f"facebook/{name}", _META_LICENCE, requires=requires, follows_melodies=follows_melodies)
        for name in names
    }


PUBLISHED: Mapping[str, PublishedModel] = {
    **_meta(
        "musicgen-small",
        "musicgen-stereo-small",
        "musicgen-medium",
        "musicgen-stereo-medium",
        "musicgen-large",
        "musicgen-stereo-large",
    ),
    **_meta(
        "musicgen-melody",
        "musicgen-stereo-melody",
        "musicgen-melody-large",
        "musicgen-stereo-melody-large",
        follows_melodies=True,
    ),
    **_meta("musicgen-style", requires=("m-a-p/MERT-v1-95M",)),
    **_meta(
        "magnet-small-10secs",
        "magnet-medium-10secs",
        "magnet-small-30secs",
        "magnet-medium-30secs",
        "audiogen-medium",
        "audio-magnet-small",
        "audio-magnet-medium",
    ),
    "stable-audio-open-1.0": PublishedModel(
        "stabilityai/stable-audio-open-1.0", _STABILITY_LICENCE, files=DIFFUSERS_FILES
    ),
    "stable-audio-3-medium": PublishedModel(
        "stabilityai/stable-audio-3-medium", _STABILITY_LICENCE, files=DIFFUSERS_FILES
    ),
    "acestep-v15-xl-turbo-diffusers": PublishedModel(
        "ACE-Step/acestep-v15-xl-turbo-diffusers", "MIT", files=DIFFUSERS_FILES
    ),
}
"""Name → model. The first that is installed is the default model: those that make music from text alone come first, the
smaller ones before the larger."""
