"""Gives the project's modules and their imports, read from source, and checks of the import rules on them."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SNAKE_CASE = re.compile(r"[a-z]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class Module:
    """One module of the project."""

    name: str
    """Dotted, e.g. "storage_service.domain.leases"; a package's `__init__` has the package's name."""
    path: Path
    is_generated: bool
    imports: frozenset[str]
    """Dotted names of all imports, also of those inside functions: modules, and the names imported from them."""
    runtime_imports: frozenset[str]
    """The same without the imports under `if TYPE_CHECKING:`."""

    @property
    def stem(self) -> str:
        return self.path.stem


@dataclass(frozen=True)
class SourceTree:
    """The modules of some packages below a folder."""

    root: Path
    packages: tuple[str, ...]

    @cached_property
    def modules(self) -> Mapping[str, Module]:
        paths = [path for package in self.packages for path in sorted((self.root / package).rglob("*.py"))]
        modules = (self._read(path) for path in paths)
        return {module.name: module for module in modules}

    @property
    def handwritten(self) -> Iterator[Module]:
        """The modules that are not generated."""
        return (module for module in self.modules.values() if not module.is_generated)

    def resolve(self, imported: str) -> str | None:
        """Returns the module of this tree that an import loads; None if the import is external."""
        while imported and imported not in self.modules:
            imported = imported.rpartition(".")[0]
        return imported or None

    def _read(self, path: Path) -> Module:
        parts = path.relative_to(self.root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text())
        type_only = {
            child
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for child in ast.walk(node)
        }
        nodes = list(ast.walk(tree))
        return Module(
            name=name,
            path=path,
            is_generated=parts[0] == "dgx_music" and ("v1" in parts or (path.parent / "v1").is_dir()),
            imports=frozenset(_imported(nodes)),
            runtime_imports=frozenset(_imported(node for node in nodes if node not in type_only)),
        )


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, prefix: str) -> bool:
    """Returns whether `name` is the module `prefix` or lies in the package of that name."""
    return name == prefix or name.startswith(f"{prefix}.")


def longest_prefix(name: str, prefixes: Iterable[str]) -> str | None:
    """Returns the most specific of the dotted prefixes that `name` lies within."""
    return max((prefix for prefix in prefixes if is_within(name, prefix)), key=len, default=None)


def forbidden_imports(
    tree: SourceTree, importer: str, forbidden: Collection[str], allowed: Collection[str] = ()
) -> list[str]:
    """Returns the imports by modules within `importer` of names within `forbidden` but not within `allowed`."""
    return [
        f"{module.name} imports {imported}"
        for module in tree.handwritten
        if is_within(module.name, importer)
        for imported in sorted(module.imports)
        if longest_prefix(imported, forbidden) and not longest_prefix(imported, allowed)
    ]


def package_violations(tree: SourceTree, may_import: Mapping[str, Collection[str]]) -> list[str]:
    """Returns the imports of the project's packages that `may_import` does not allow the importing package."""
    return [
        violation
        for package, allowed in may_import.items()
        for violation in forbidden_imports(tree, package, set(tree.packages) - {package, *allowed})
    ]


def library_violations(tree: SourceTree, only_in: Mapping[str, Collection[str]]) -> list[str]:
    """Returns the imports of a library outside the packages to which `only_in` confines it."""
    return [
        f"{module.name} imports {library}"
        for module in tree.handwritten
        for library, packages in only_in.items()
        if any(is_within(imported, library) for imported in module.imports)
        and not longest_prefix(module.name, packages)
    ]


def wire_violations(
    tree: SourceTree, package: str, at_the_wire: Collection[str], wire: Collection[str], allowed: Collection[str]
) -> list[str]:
    """Returns the imports of gRPC, protobuf or the stubs by modules of the package outside `at_the_wire`."""
    return [
        f"{module.name} imports {imported}"
        for module in tree.handwritten
        if is_within(module.name, package) and not longest_prefix(module.name, at_the_wire)
        for imported in sorted(module.imports)
        if longest_prefix(imported, wire) and not longest_prefix(imported, allowed)
    ]


def stub_violations(tree: SourceTree, stubs_of: Mapping[str, Collection[str]]) -> list[str]:
    """Returns the imports of generated stubs other than those that `stubs_of` allows the importing package."""
    generated = [module.name for module in tree.modules.values() if module.is_generated]
    return [
        violation
        for package, allowed in stubs_of.items()
        for violation in forbidden_imports(tree, package, generated, allowed)
    ]


def layer_violations(tree: SourceTree, layers: Sequence[Collection[str]]) -> list[str]:
    """Returns the imports that point up, or sideways to another prefix of the same layer.

    `layers` lists the layers from the top to the bottom, each as dotted prefixes. A module belongs to the most specific
    prefix that it lies within; a module that belongs to none is a violation.
    """
    depth = {prefix: number for number, layer in enumerate(layers) for prefix in layer}
    packages = {prefix.partition(".")[0] for prefix in depth}
    violations = []
    for module in tree.handwritten:
        if module.name.partition(".")[0] not in packages:
            continue
        home = longest_prefix(module.name, depth)
        if home is None:
            violations.append(f"{module.name} belongs to no layer")
            continue
        for imported in sorted(module.imports):
            target = longest_prefix(tree.resolve(imported) or "", depth)
            if target is not None and target != home and depth[target] <= depth[home]:
                violations.append(f"{module.name} imports {imported}, which is not below it")
    return violations


def cycle(tree: SourceTree) -> list[str]:
    """Returns the modules of an import cycle, which may include generated ones; empty if there is no cycle."""
    graph = {
        module.name: {
            target
            for imported in module.runtime_imports
            if (target := tree.resolve(imported)) is not None and target != module.name
        }
        for module in tree.modules.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def crowded_folders(tree: SourceTree, limit: int) -> dict[str, int]:
    """Returns the folders that hold more than `limit` modules, with their counts."""
    counts = Counter(
        str(module.path.parent.relative_to(tree.root)) for module in tree.handwritten if module.stem != "__init__"
    )
    return {folder: count for folder, count in counts.items() if count > limit}


def shared_names(tree: SourceTree, allowed: Collection[str]) -> dict[str, list[str]]:
    """Returns the names that more than one module has, except those `allowed`."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for module in tree.handwritten:
        by_stem[module.stem].append(module.name)
    return {stem: names for stem, names in by_stem.items() if len(names) > 1 and stem not in allowed}


def long_modules(tree: SourceTree, limit: int) -> dict[str, int]:
    """Returns the modules of more than `limit` lines, with their lengths."""
    lengths = {module.name: len(module.path.read_text().splitlines()) for module in tree.handwritten}
    return {name: length for name, length in lengths.items() if length > limit}


def unmirrored_tests(tree: SourceTree, unit_tests: Path) -> list[str]:
    """Returns the unit tests that do not mirror the path of the module they test: the tests of a module are in
    `<package>/<sub-package>/test_<module>.py` or `test_<module>_<aspect>.py`."""
    unmirrored = []
    for path in sorted(unit_tests.rglob("test_*.py")):
        folder = ".".join(path.parent.relative_to(unit_tests).parts)
        subject = path.stem.removeprefix("test_")
        modules = [module.name for module in tree.handwritten if is_within(module.name, folder)]
        names = [module.removeprefix(f"{folder}.") for module in modules]
        if not any(subject == name or subject.startswith(f"{name}_") for name in names):
            unmirrored.append(str(path.relative_to(unit_tests)))
    return unmirrored


def unit_tests_that_serve(tree: SourceTree, unit_tests: str, servers: Collection[str]) -> list[str]:
    """Returns the unit tests that can start a server: they, or a test helper they use, import one of `servers`."""

    def reaches(module: Module, seen: set[str]) -> bool:
        for imported in module.imports:
            if longest_prefix(imported, servers):
                return True
            helper = tree.resolve(imported)
            if helper is not None and helper not in seen:
                seen.add(helper)
                if reaches(tree.modules[helper], seen):
                    return True
        return False

    return [module.name for module in tree.handwritten if is_within(module.name, unit_tests) and reaches(module, set())]


def misnamed_log_events(tree: SourceTree) -> list[str]:
    """Returns the log calls whose event is not a snake_case name: details belong into fields."""
    misnamed = []
    for module in tree.handwritten:
        for node in ast.walk(ast.parse(module.path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr="debug" | "info" | "warning" | "error"),
                    args=[event, *_],
                ) if not (isinstance(event, ast.Constant) and SNAKE_CASE.fullmatch(str(event.value))):
                    misnamed.append(f"{module.name}:{node.lineno}")
    return misnamed
