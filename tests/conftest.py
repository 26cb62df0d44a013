"""What holds for all tests. It is set before any library is imported, as they read it then, and handed down to the
processes that tests start."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import psycopg

    from storage_service.db.database import Database

# Tiny models gain nothing by a second thread, and on a busy machine lose much: threads that spin for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The models of whoever runs the tests are neither seen nor touched, and nothing is downloaded.
HF_HOME = tempfile.mkdtemp(prefix="dgx-music-hf-")
atexit.register(shutil.rmtree, HF_HOME, ignore_errors=True)
os.environ |= {"HF_HOME": HF_HOME, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

# That a machine is busy is no reason to refuse a call: a test of such refusals says for itself how long to wait.
PATIENT = {"busy_timeout_seconds": 60.0}
os.environ.setdefault("DGX_MUSIC_DATABASE_TIMEOUT_SECONDS", "60")

# The same examples each time, so that a test that fails does so for whoever looks after it. `long` draws new ones, and
# remembers in .hypothesis those that failed.
settings.register_profile("ci", max_examples=1000, deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("long", max_examples=50_000, deadline=None)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def postgres() -> Iterator[psycopg.Connection[Any]]:
    """A connection to a Postgres server of this test run."""
    from tests.support.postgres import postgres_server

    with postgres_server() as connection:
        yield connection


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of its own for the test, without a schema: the test runs on each of the two."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.db"
        return
    from tests.support.postgres import scratch_database

    with scratch_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
def open_database() -> Iterator[Callable[..., Database]]:
    """Opens a `Database`; closed at the test's end, however it ends."""
    from storage_service.db.database import Database

    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(Database(url, **{**PATIENT, **options}))


@pytest.fixture(scope="module", autouse=True)
def _told_where_it_was_left_open() -> Iterator[None]:
    """What a module's tests leave open is an error at its last one. Found only at the end of the run, it would be the
    last that is told, after the tests that failed."""
    yield
    gc.collect()
    gc.freeze()  # What is left, imports for the most part, stays: the next time it need not be looked through.
