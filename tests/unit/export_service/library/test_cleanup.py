"""Selection of files by a cleanup policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from export_service.library.cleanup import CleanupPolicy, CleanupReason, select_files
from export_service.library.inventory import FileKind, LibraryFile

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def file(days: float, size_bytes: int = 10, kind: FileKind = FileKind.OUTPUT) -> LibraryFile:
    """Returns a file that is this many days old, with the age in its name."""
    return LibraryFile(kind, Path(f"{kind}-{days}.wav"), size_bytes, NOW - timedelta(days=days))


def selected(
    files: list[LibraryFile], policy: CleanupPolicy, orphans: tuple[LibraryFile, ...] = ()
) -> dict[str, CleanupReason]:
    return {file.path.name: reason for file, reason in select_files(files, policy, orphans, NOW)}


def test_empty_policy_selects_nothing():
    assert selected([file(1), file(1000)], CleanupPolicy(), orphans=(file(1),)) == {}


def test_age_limit_selects_strictly_older_files_oldest_first():
    found = selected([file(31), file(30), file(99), file(1)], CleanupPolicy(older_than=timedelta(days=30)))
    assert list(found.items()) == [("outputs-99.wav", CleanupReason.AGE), ("outputs-31.wav", CleanupReason.AGE)]


def test_size_limit_selects_all_files_older_than_first_that_does_not_fit():
    files = [file(1, 50), file(2, 60), file(3, 1)]
    assert list(selected(files, CleanupPolicy(keep_newest_bytes=100))) == ["outputs-3.wav", "outputs-2.wav"]
    assert selected(files, CleanupPolicy(keep_newest_bytes=111)) == {}
    assert list(selected(files, CleanupPolicy(keep_newest_bytes=110))) == ["outputs-3.wav"]


def test_files_selected_by_another_rule_do_not_count_towards_size_limit():
    orphan = file(0, 1000, FileKind.RENDER)
    policy = CleanupPolicy(older_than=timedelta(days=30), keep_newest_bytes=100, orphans=True)
    found = selected([file(40, 5), file(1, 100), orphan], policy, orphans=(orphan,))
    assert found == {"outputs-40.wav": CleanupReason.AGE, "renders-0.wav": CleanupReason.ORPHAN}
