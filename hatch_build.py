"""Builds the gRPC stubs into the package `dgx_music`, on every install and wheel (and by `make proto`)."""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
PROTOS = ROOT / "protos"
STUBS = "dgx_music"


def build_stubs() -> None:
    """Compiles every .proto to a module, its typed gRPC stub, and the .pyi files of both."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".stubs-") as folder:
        built = Path(folder)
        _compile(built)
        made = {path.relative_to(built) for path in built.rglob("*.py*")}
        for path in made:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            # One file takes the other's place at once: a server that runs from here is not disturbed.
            (built / path).replace(ROOT / path)
    # What is written by hand stands beside the sub-packages; all that stands in them is generated.
    for stale in {path.relative_to(ROOT) for path in (ROOT / STUBS).glob("*/**/*.py*")} - made:
        if "__pycache__" not in stale.parts:
            (ROOT / stale).unlink()


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
        raise RuntimeError(f"protoc could not compile {PROTOS}; its message stands above")
    for source in sources:
        package = folder / source.parent.relative_to(PROTOS)
        for module in (package, package.parent):
            (module / "__init__.py").touch()


class StubsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling calls this before it packs or links the packages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build_stubs()


if __name__ == "__main__":
    build_stubs()
