"""Generates the gRPC stubs in `dgx_music` from `protos`, on every install and wheel, and by `make proto`."""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path(__file__).parent
PROTOS = PACKAGE.parent / "protos"


def build_stubs() -> None:
    """Compiles every .proto file to a module, its gRPC stub, and the .pyi files of both."""
    with tempfile.TemporaryDirectory(dir=PACKAGE, prefix=".stubs-") as folder:
        compiled = Path(folder)
        _compile(compiled)
        current = {path.relative_to(compiled / PACKAGE.name) for path in compiled.rglob("*.py*")}
        for path in current:
            _install(compiled / PACKAGE.name / path, PACKAGE / path)
    # Everything in a sub-package with a folder v1 is generated; all other modules are written by hand.
    for stale in {path.relative_to(PACKAGE) for path in PACKAGE.glob("*/v1/**/*.py*")} - current:
        if "__pycache__" not in stale.parts:
            (PACKAGE / stale).unlink()


def _install(source: Path, target: Path) -> None:
    """Replaces the file atomically, and only if it has changed: servers may be running from it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != source.read_bytes():
        source.replace(target)


def _compile(folder: Path) -> None:
    from grpc_tools import protoc

    sources = sorted(PROTOS.rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={PROTOS}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={folder}",
        f"--pyi_out={folder}",
        f"--grpc_python_out={folder}",
        f"--mypy_grpc_out=quiet:{folder}",
        *map(str, sources),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc failed to compile {PROTOS}; see its message above")
    for source in sources:
        package = folder / source.parent.relative_to(PROTOS)
        for module in (package, package.parent):
            (module / "__init__.py").touch()


class StubsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling before it packs or links the package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # A source distribution has no protos folder beside it, and brings the stubs along.
        if PROTOS.is_dir():
            build_stubs()


if __name__ == "__main__":
    build_stubs()
