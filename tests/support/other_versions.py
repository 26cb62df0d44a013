"""Gives the code of another version in a folder of its own: of the last release, or of one that is still to come."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

from storage_service.db import schema

ROOT = Path(__file__).parents[2]
PACKAGES = "dgx_music", "service_runtime", "storage_service", "migrations"

NEXT_REVISION = "9001"

_MIGRATION = f'''"""Moods."""

import sqlalchemy as sa
from alembic import op

revision = "{NEXT_REVISION}"
down_revision = "{schema.REVISIONS[-1]}"
min_compatible = "{schema.REVISIONS[-1]}"


def upgrade() -> None:
    op.add_column("generations", sa.Column("mood", sa.Text, nullable=False, server_default=sa.text("'calm'")))
    op.create_index("ix_generations_mood", "generations", ["mood"])
    op.create_table("moods", sa.Column("name", sa.Text, primary_key=True))


def downgrade() -> None:
    op.drop_table("moods")
    op.drop_index("ix_generations_mood", "generations")
    op.drop_column("generations", "mood")
'''


def write_next_version(folder: Path) -> None:
    """Writes this version with one more migration, which adds a column that it reads and writes, and says that servers
    of this one can go on."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "migrations" / "versions" / f"{NEXT_REVISION}_moods.py").write_text(_MIGRATION)
    _replace(
        folder / "storage_service/db/schema.py", f'"{schema.REVISIONS[-1]}")', f'"{schema.REVISIONS[-1]}", "9001")'
    )
    column = '    mood: Mapped[str] = mapped_column(Text, default="calm", server_default=text("\'calm\'"))\n'
    _replace(folder / "storage_service/db/models.py", "    client: Mapped[str]", column + "    client: Mapped[str]")


def write_release(folder: Path, version: str) -> bool:
    """Writes the code of a release, as it was when `tests/releases` was given its data. Returns whether Git has it."""
    git = ["git", "-C", str(ROOT)]
    data = f"tests/releases/{version}/release.json"
    found = subprocess.run([*git, "log", "-1", "--format=%H", "--", data], capture_output=True, text=True, check=False)
    commit = found.stdout.strip()
    if found.returncode or not commit:
        return False
    archive = subprocess.run([*git, "archive", commit, "protos", *PACKAGES], capture_output=True, check=False)
    if archive.returncode:
        return False
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    build = [sys.executable, "dgx_music/hatch_build.py"]
    subprocess.run(build, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, check=True)
    return True


async def run_code(folder: Path, code: str, *arguments: str) -> str:
    """Runs Python code of the version in the folder, and returns what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, *arguments),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


def in_folder(folder: Path) -> tuple[str, ...]:
    """Returns the prefix of a command that runs Python with the code in the folder."""
    return "env", "-C", str(folder), f"PYTHONPATH={folder}"


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, (file, old)
    file.write_text(text.replace(old, new))
