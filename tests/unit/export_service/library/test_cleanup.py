"""Which files a cleanup policy chooses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from export_service.library.cleanup import Policy, Reason, choose
from export_service.library.inventory import Kind, LibraryFile

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def file(days: float, size_bytes: int = 10, kind: Kind = Kind.OUTPUT) -> LibraryFile:
    return LibraryFile(kind, Path(f"{kind}-{days}.wav"), size_bytes, NOW - timedelta(days=days))


def chosen(files: list[LibraryFile], policy: Policy, orphans: tuple[LibraryFile, ...] = ()) -> dict[str, Reason]:
    return {one.path.name: reason for one, reason in choose(files, policy, orphans, NOW)}


def test_nothing_goes_without_a_policy():
    assert chosen([file(1), file(1000)], Policy(), orphans=(file(1),)) == {}


def test_the_oldest_goes_first_and_what_is_just_as_old_as_said_stays():
    found = chosen([file(31), file(30), file(99), file(1)], Policy(older_than=timedelta(days=30)))
    assert list(found.items()) == [("outputs-99.wav", Reason.AGE), ("outputs-31.wav", Reason.AGE)]


def test_what_is_older_than_the_first_that_does_not_fit_goes_however_small():
    files = [file(1, 50), file(2, 60), file(3, 1)]
    assert list(chosen(files, Policy(keep_newest_bytes=100))) == ["outputs-3.wav", "outputs-2.wav"]
    assert chosen(files, Policy(keep_newest_bytes=111)) == {}
    assert list(chosen(files, Policy(keep_newest_bytes=110))) == ["outputs-3.wav"]


def test_what_goes_anyway_takes_no_room():
    orphan = file(0, 1000, Kind.RENDER)
    policy = Policy(older_than=timedelta(days=30), keep_newest_bytes=100, orphans=True)
    found = chosen([file(40, 5), file(1, 100), orphan], policy, orphans=(orphan,))
    assert found == {"outputs-40.wav": Reason.AGE, "renders-0.wav": Reason.ORPHAN}
