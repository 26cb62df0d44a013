"""Licences from model cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from generation_service.models.model_card import read_licence


@pytest.mark.parametrize(
    ("front_matter", "licence"),
    [
        ("license: mit", "MIT"),
        ("license: [apache-2.0, mit]", "Apache-2.0"),
        ("license: cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("license: other\nlicense_name: stable-audio-community", "LicenseRef-stable-audio-community"),
        ("license_name: My own licence!", "LicenseRef-My-own-licence"),
        ("license: openrail++", "LicenseRef-openrail"),
        (f"license: {'x' * 5000}", f"LicenseRef-{'x' * 100}"),
        ("license: other", "NOASSERTION"),
        ("license: 5", "NOASSERTION"),
        ("tags: [music]", "NOASSERTION"),
        ("license: [", "NOASSERTION"),
        ("license: 2026-99-99", "NOASSERTION"),
        ("just text", "NOASSERTION"),
    ],
)
def test_the_card_states_the_licence(tmp_path: Path, front_matter: str, licence: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# Model\nlicense: apache-2.0\n")
    assert read_licence(tmp_path, "mine") == licence


def test_without_a_card_it_is_that_of_the_published_repository(tmp_path: Path) -> None:
    assert read_licence(tmp_path, "stable-audio-open-1.0") == "LicenseRef-stable-audio-community"
    assert read_licence(tmp_path, "acestep-v15-xl-turbo-diffusers") == "MIT"
    assert read_licence(tmp_path, "mine") == "NOASSERTION"


def test_a_card_without_front_matter_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"\xff\xfe license: mit\n---\n")
    assert read_licence(tmp_path, "stable-audio-open-1.0") == "LicenseRef-stable-audio-community"


def test_a_converted_model_has_the_licence_of_the_original_unless_its_card_says_otherwise(tmp_path: Path) -> None:
    assert read_licence(tmp_path, "musicgen-small", "Apache-2.0") == "Apache-2.0"
    assert read_licence(tmp_path, "mine", "LicenseRef-stable-audio-community") == "LicenseRef-stable-audio-community"
    assert read_licence(tmp_path, "mine", "NOASSERTION") == "NOASSERTION"
    assert read_licence(tmp_path, "musicgen-small", ["MIT"]) == "CC-BY-NC-4.0"
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert read_licence(tmp_path, "mine", "Apache-2.0") == "MIT"
