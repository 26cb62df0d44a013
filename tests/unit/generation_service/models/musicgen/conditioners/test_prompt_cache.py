"""What the cache keeps, and what it drops."""

from __future__ import annotations

import threading

from generation_service.models.musicgen.conditioners.prompt_cache import PromptCache


def test_least_recently_used_value_is_dropped():
    cache: PromptCache[int] = PromptCache(2, 1000)
    cache.put("a", 1, 10)
    cache.put("b", 2, 10)
    assert cache.get("a") == 1
    cache.put("c", 3, 10)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert (len(cache), cache.size_bytes) == (2, 20)


def test_size_is_bounded_but_the_newest_value_is_kept():
    cache: PromptCache[int] = PromptCache(10, 100)
    cache.put("a", 1, 60)
    cache.put("b", 2, 60)
    assert (cache.get("a"), cache.size_bytes) == (None, 60)
    cache.put("large", 3, 1000)
    assert (cache.get("large"), len(cache), cache.size_bytes) == (3, 1, 1000)
    cache.put("small", 4, 1)
    assert (cache.get("large"), cache.size_bytes) == (None, 1)


def test_replaced_value_is_counted_once():
    cache: PromptCache[int] = PromptCache(10, 100)
    cache.put("a", 1, 60)
    cache.put("a", 2, 30)
    assert (cache.get("a"), len(cache), cache.size_bytes) == (2, 1, 30)


def test_threads_share_it():
    cache: PromptCache[int] = PromptCache(8, 1000)

    def work(offset: int) -> None:
        for number in range(2000):
            cache.put(str((number + offset) % 12), number, 1)
            cache.get(str(number % 12))

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(cache), cache.size_bytes) == (8, 8)
