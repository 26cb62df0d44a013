"""What ARCHITECTURE.md says of who knows whom, checked against every import in the packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

KNOWS = {
    "dgx_music": {"service_runtime"},
    "service_runtime": {"dgx_music"},
    "storage_service": {"dgx_music", "service_runtime"},
    "export_service": {"dgx_music", "service_runtime"},
    "generation_service": {"dgx_music", "service_runtime"},
    "gateway": {"dgx_music", "service_runtime", "storage_service", "export_service", "generation_service"},
}
"""Package → the packages of ours that it may import besides itself."""

ONLY_IN = {
    "torch": {"generation_service"},
    "sqlalchemy": {"storage_service"},
    "alembic": {"storage_service"},
    "soundfile": {"export_service"},
    "typer": {"gateway"},
    "rich": {"gateway"},
}
"""Library → the packages that may import it."""

WIRE = {"grpc", "google", "grpc_status", "grpc_health", "dgx_music"}
"""What the domain knows nothing of."""

AT_THE_WIRE = {
    "server",
    "service",
    "convert",
    "convert_library",
    "worker",
    "job",
    "lease",
    "source",
    "upload",
    "__init__",
}
"""Modules of a service that are not its domain."""


def modules(package: str) -> Iterator[Path]:
    for path in sorted((ROOT / package).rglob("*.py")):
        generated = package == "dgx_music" and path.parent != ROOT / package
        if not generated:
            yield path


def imported(path: Path) -> set[str]:
    """Top-level names that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", KNOWS)
def test_a_package_imports_only_what_it_may_know(package: str) -> None:
    paths = list(modules(package))
    assert paths
    for path in paths:
        ours = imported(path) & set(KNOWS)
        assert ours <= KNOWS[package] | {package}, f"{path.relative_to(ROOT)} imports {ours}"


@pytest.mark.parametrize("package", KNOWS)
def test_a_library_stays_in_its_room(package: str) -> None:
    for path in modules(package):
        strays = {library for library in imported(path) & set(ONLY_IN) if package not in ONLY_IN[library]}
        assert not strays, f"{path.relative_to(ROOT)} imports {strays}"


@pytest.mark.parametrize("package", ["storage_service", "export_service", "generation_service"])
def test_the_domain_knows_nothing_of_the_wire(package: str) -> None:
    domain = [path for path in modules(package) if path.stem not in AT_THE_WIRE]
    assert domain
    for path in domain:
        assert not imported(path) & WIRE, f"{path.relative_to(ROOT)} imports {imported(path) & WIRE}"


def test_no_module_is_longer_than_one_noun_needs() -> None:
    lengths = {path: len(path.read_text().splitlines()) for package in KNOWS for path in modules(package)}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > 300} == {}
