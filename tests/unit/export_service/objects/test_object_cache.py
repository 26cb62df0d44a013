import hashlib
from datetime import UTC, datetime

import pytest

from dgx_music.errors import Unavailable
from export_service.objects.bucket import StoredObject
from export_service.objects.object_cache import ObjectCache

IDS = [f"00000000-0000-4000-8000-{number:012}" for number in range(6)]


class Contents:
    """What a bucket has, by key."""

    def __init__(self):
        self.reads = []
        self.sha256 = hashlib.sha256(b"x" * 100).hexdigest()

    def head(self, key):
        return None, {"sha256": self.sha256}

    def read_range(self, stored, offset, size):
        self.reads.append(stored.key)
        return b"x" * min(size, stored.size_bytes - offset)


def stored(number, e_tag='"a/b-1"'):
    return StoredObject(f"outputs/{IDS[number]}/1.wav", 100, datetime.now(UTC), e_tag)


@pytest.fixture
def contents():
    return Contents()


@pytest.fixture
def in_use():
    return set()


@pytest.fixture
def cache(tmp_path, contents, in_use):
    cache = ObjectCache(tmp_path, contents, 250, in_use.__contains__)
    cache.open()
    return cache


def files(tmp_path):
    return {path.parent.name for path in tmp_path.rglob("*.wav")}


def test_a_path_stands_for_a_version(cache):
    path = cache.fetch(stored(0))
    assert path.read_bytes() == b"x" * 100
    assert cache.version_of(path) == (f"outputs/{IDS[0]}/1.wav", '"a/b-1"')
    assert cache.fetch(stored(0, '"other"')) != path


def test_fetches_once(cache, contents):
    assert cache.fetch(stored(0)) == cache.fetch(stored(0))
    assert len(contents.reads) == 1


def test_removes_what_was_not_used_for_the_longest_time(cache, tmp_path):
    cache.fetch(stored(0))
    cache.fetch(stored(1))
    cache.fetch(stored(0))
    cache.fetch(stored(2))
    assert files(tmp_path) == {IDS[0], IDS[2]}
    assert not {path.name for path in tmp_path.rglob("*") if path.is_dir()} & {IDS[1]}


def test_keeps_what_is_in_use(cache, tmp_path, in_use):
    in_use |= {IDS[0], IDS[1]}
    for number in range(4):
        cache.fetch(stored(number))
    assert files(tmp_path) == {IDS[0], IDS[1], IDS[3]}
    in_use.clear()
    cache.fetch(stored(4))
    assert files(tmp_path) == {IDS[3], IDS[4]}


def test_goes_on_after_a_restart(cache, tmp_path, contents):
    (cache.staging / "x.fetch").write_bytes(b"x")
    cache.fetch(stored(0))
    cache.fetch(stored(1))
    again = ObjectCache(tmp_path, contents, 250, lambda _: False)
    again.open()
    assert not list(again.staging.iterdir())
    again.fetch(stored(2))
    assert files(tmp_path) == {IDS[1], IDS[2]}
    assert len(contents.reads) == 3


def test_fetches_a_copy_of_the_wrong_length_again(cache, contents):
    cache.fetch(stored(0)).write_bytes(b"x")
    assert cache.fetch(stored(0)).read_bytes() == b"x" * 100


def test_refuses_another_content(cache, contents, tmp_path):
    contents.sha256 = "0" * 64
    with pytest.raises(Unavailable, match="is damaged"):
        cache.fetch(stored(0))
    assert files(tmp_path) == set()
    assert not list(cache.staging.iterdir())
