"""deploy/requirements: what the images contain is pinned, has hashes, and is what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
IMAGES = {"services": ["otel", "postgres", "s3", "tls"], "generation": ["diffusion", "midi", "musicgen", "otel", "tls"]}
"""Image → the extras in it."""
OWN = {"dgx-music", "dgx-music-client"}
LICENCES = re.compile(
    r"(Apache|BSD|0BSD|ISC|MIT|MPL|PSF|CNRI|CC0|Zlib|BSL-1\.0|Mozilla|Python|zlib|LLVM|3-Clause"
    # Linked as they are, and replaceable: libsoxr and psycopg.
    r"|LGPL|GNU Lesser"
    r")",
    re.IGNORECASE,
)
"""Licences of what the images contain; docs/deploy/README.md lists them."""
FOR_OTHER_SYSTEMS = {"colorama", "httpx2-jsfetch"}
UNSTATED = {"pysqlite3"}
"""Its licence, zlib's, is in its files alone."""
LINUX = {"sys_platform": "linux", "python_version": "3.12", "python_full_version": "3.12.0"}


def project(folder: str = ".") -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())


def read_pins(name: str) -> dict[str, tuple[Requirement, int]]:
    """Package → its requirement, and how many hashes it has."""
    text = (ROOT / f"deploy/requirements/{name}.txt").read_text().replace("\\\n", " ")
    pins = {}
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement = Requirement(line.partition(" --hash=")[0])
            pins[canonicalize_name(requirement.name)] = (
                requirement,
                len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line)),
            )
    return pins


def wanted(extras: list[str]) -> list[Requirement]:
    of_services, of_client = project()["project"], project("dgx_music")["project"]
    texts = [*of_services["dependencies"], *of_client["dependencies"]]
    for extra in extras:
        texts += of_services["optional-dependencies"][extra]
    return [one for one in map(Requirement, texts) if canonicalize_name(one.name) not in OWN]


@pytest.mark.parametrize("name", [*IMAGES, "build"])
def test_each_package_has_one_version_and_its_hashes(name: str) -> None:
    pins = read_pins(name)
    assert len(pins) > 10
    assert [package for package, (_, hashes) in pins.items() if not hashes] == []
    assert [str(one) for one, _ in pins.values() if [each.operator for each in one.specifier] != ["=="]] == []


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_image_has_what_the_packages_need(image: str, machine: str) -> None:
    environment = LINUX | {"platform_machine": machine}
    pins = {
        package: next(iter(one.specifier)).version
        for package, (one, _) in read_pins(image).items()
        if one.marker is None or one.marker.evaluate(environment)
    }
    needed = [one for one in wanted(IMAGES[image]) if one.marker is None or one.marker.evaluate(environment)]
    unmet = [
        str(one)
        for one in needed
        if not one.specifier.contains(pins.get(canonicalize_name(one.name), "0"), prereleases=True)
    ]
    assert unmet == [], "run `make requirements`"
    assert ("torch" in pins) == (image == "generation")


def test_image_has_the_versions_that_the_tests_use() -> None:
    tested = [Requirement(one) for one in project()["project"]["optional-dependencies"]["dev"] if "==" in one]
    pins = read_pins("generation")
    for one in tested:
        if one.name in pins:
            assert pins[one.name][0].specifier == one.specifier


def test_wheels_are_built_by_what_the_packages_ask_for() -> None:
    pins = read_pins("build")
    for folder in (".", "dgx_music"):
        for one in map(Requirement, project(folder)["build-system"]["requires"]):
            assert one.specifier.contains(next(iter(pins[one.name][0].specifier)).version)


@pytest.mark.parametrize("image", IMAGES)
def test_no_licence_is_surprising(image: str) -> None:
    surprising = {}
    for package in read_pins(image):
        try:
            metadata = distribution(package).metadata
        except PackageNotFoundError:
            assert package.startswith(("nvidia-", "cuda-")) or package in FOR_OTHER_SYSTEMS
            continue
        classifiers = [one for one in metadata.get_all("Classifier") or [] if one.startswith("License ::")]
        stated = metadata.get("License-Expression") or "; ".join(classifiers) or metadata.get("License") or ""
        is_known = all(LICENCES.search(one) for one in re.split(r" AND |; ", stated))
        if not is_known and package not in UNSTATED:
            surprising[package] = stated
    assert surprising == {}
