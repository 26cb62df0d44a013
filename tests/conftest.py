"""The environment and the fixtures of all tests.

The environment variables are set before any library is imported, because libraries read them on import, and are
inherited by the processes that tests start.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
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
    from tests.support.s3_server import S3Server

# Tiny models gain nothing from a second thread, and on a busy machine they lose a lot: the threads spin-wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where this is set, each process that a test starts compiles the project's modules anew: a quarter of its CPU time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tests end commands by these signals. A background job of a script, and nohup, have them ignored, and processes inherit
# that, but no handler: with one that does nothing, this process goes on as if it ignored them.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda number, frame: None)

# An empty model cache, so that the user's own models are not used, and nothing is downloaded.
HF_HOME = tempfile.mkdtemp(prefix="dgx-music-hf-")
atexit.register(shutil.rmtree, HF_HOME, ignore_errors=True)
os.environ |= {"HF_HOME": HF_HOME, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

# An empty config file, so that the user's own is not read.
os.environ["DGX_MUSIC_CONFIG"] = os.devnull

# A busy machine should not fail a test: tests of timeouts set their own.
LONG_TIMEOUT = {"busy_timeout_seconds": 60.0}
os.environ.setdefault("DGX_MUSIC_DATABASE_TIMEOUT_SECONDS", "60")

# The profile "ci" uses the same examples in each run, so that a failure can be reproduced. "long" draws new examples,
# and stores those that fail in .hypothesis.
settings.register_profile("ci", max_examples=400, deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("long", max_examples=50_000, deadline=None)
settings.load_profile("ci")


def pytest_configure() -> None:
    from tests.support.log_capture import log_to_pytest

    log_to_pytest()


def pytest_collection_finish() -> None:
    # What was imported and collected stays to the end: the garbage collector need not look at it after each module.
    gc.freeze()


@pytest.fixture(scope="session")
def postgres() -> Iterator[psycopg.Connection[Any]]:
    """A connection to the Postgres server of this test run."""
    from tests.support.postgres import postgres_server

    with postgres_server() as connection:
        yield connection


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """The S3 server of this test run."""
    from tests.support.s3_server import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[str]:
    """The name of a new, empty bucket on it."""
    with s3.bucket() as name:
        yield name


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new database without a schema; the test runs once on SQLite and once on Postgres."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.db"
        return
    from tests.support.postgres import scratch_database

    with scratch_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
def open_database() -> Iterator[Callable[..., Database]]:
    """Opens a `Database`, which is closed at the end of the test."""
    from storage_service.db.database import Database

    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(Database(url, **{**LONG_TIMEOUT, **options}))


@pytest.fixture(scope="module", autouse=True)
def _report_unclosed_resources() -> Iterator[None]:
    """Collects garbage after each module, so that a resource left open is an error in that module and not at the end of
    the run."""
    yield
    gc.collect()
    gc.freeze()  # Survivors are mostly imported modules; the next collection can skip them.
