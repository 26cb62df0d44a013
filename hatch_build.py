"""Builds the gRPC stubs into the package `dgx_music`, on every install and wheel (and by `make proto`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "dgx_music"


def build_stubs() -> None:
    """Compiles every .proto to a module, its typed gRPC stub, and the .pyi files of both."""
    from importlib.resources import files

    from grpc_tools import protoc

    for package in STUBS.iterdir():
        if package.is_dir():  # All that is generated stands in sub-packages; what is written stands beside them.
            shutil.rmtree(package)
    sources = sorted(PROTOS.rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={PROTOS}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={ROOT}",
        f"--pyi_out={ROOT}",
        f"--grpc_python_out={ROOT}",
        f"--mypy_grpc_out={ROOT}",
        *map(str, sources),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc could not compile {PROTOS}; its message stands above")
    for source in sources:
        folder = ROOT / source.parent.relative_to(PROTOS)
        for package in (folder, folder.parent):
            (package / "__init__.py").touch()


class StubsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling calls this before it packs or links the packages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build_stubs()


if __name__ == "__main__":
    build_stubs()
