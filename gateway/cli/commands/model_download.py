"""MusicGen models from the Hugging Face hub: into its cache, where the generation service finds them, and out of it.

Beside what it downloads of a model, `pull` leaves a note in the model's folder of the cache, so that `remove` deletes
that and nothing that other programs put there.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.display.console import Screen, escaped
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from generation_service.models.discovery import PUBLISHED
from service_runtime.optional_deps import install_extra_command

OWNER = "facebook"
CHECKPOINT = ("state_dict.bin", "compression_state_dict.bin")
TEXT_ENCODER = "t5-base"
TEXT_ENCODER_FILES = ("config.json", "model.safetensors", "spiece.model", "tokenizer.json", "tokenizer_config.json")
CODEC_FILES = ("config.json", "model.safetensors")
LICENCE = "CC-BY-NC-4.0 (no commercial use of weights and music)"
NOTE = "pulled-by-dgx-music.json"
CODEC_NAME = re.compile(rb"[\w.-]+/encodec[\w.-]*")
"""What a checkpoint without weights of its own says: where its codec's are."""


def pull(name: str, screen: Screen) -> None:
    """Downloads what the model needs, and shows where it is. Raises CommandError where that can't be had."""
    _require_published(name)
    repository = f"{OWNER}/{name}"
    revision, folder = _fetch(repository, CHECKPOINT, screen, licence=LICENCE)
    _fetch(TEXT_ENCODER, TEXT_ENCODER_FILES, screen)
    if codec := _codec_elsewhere(folder / CHECKPOINT[1]):
        _fetch(codec, CODEC_FILES, screen)
    screen.facts(
        (
            ("model", name),
            ("revision", revision),
            ("licence", LICENCE),
            ("folder", escaped(str(folder))),
            ("use it by", f'dgx-music generate "…" --model {name}'),
        )
    )


@dataclass(frozen=True, slots=True)
class Pulled:
    """What `pull` put into the cache of one model."""

    repository: Path
    """The model's folder of the cache."""
    links: Sequence[Path]
    """The files by their names; in the cache each is a link to its content, which several revisions may share."""

    @property
    def size_bytes(self) -> int:
        return sum(link.stat().st_size for link in self.links if link.is_file())

    def remove(self) -> None:
        """Deletes them; and the model's folder, if nothing else is in it."""
        for link in self.links:
            content = link.resolve()
            link.unlink(missing_ok=True)
            if not any(other.resolve() == content for other in _links(self.repository)):
                content.unlink(missing_ok=True)
        (self.repository / NOTE).unlink()
        if not _links(self.repository):
            shutil.rmtree(self.repository)


def pulled(name: str) -> Pulled:
    """What `pull` put there of this model. Raises CommandError where that is nothing."""
    _require_published(name)
    repository = _repository_folder(f"{OWNER}/{name}")
    noted = _read_note(repository)
    if noted:
        links = [repository / "snapshots" / revision / file for revision, files in noted.items() for file in files]
        return Pulled(repository, links)
    if _links(repository):
        raise CommandError(f"{name} was not pulled by dgx-music, so it is left alone: it is in {repository}")
    raise CommandError(f"{name} is not there; `dgx-music models` shows what is")


def _require_published(name: str) -> None:
    if name not in PUBLISHED:
        raise CommandError(f"NAME: {name[:100]!r} is none that can be pulled: {', '.join(PUBLISHED)}", BAD_INPUT)


def _fetch(repository: str, files: Sequence[str], screen: Screen, *, licence: str = "") -> tuple[str, Path]:
    """Gives the commit that "main" is now, and the folder of its files.

    With a licence, that is told before, and what is downloaded is noted as pulled.
    """
    folder = _repository_folder(repository)
    with _hub_errors(repository):
        from huggingface_hub import snapshot_download

        # Which also notes in the cache which commit "main" is.
        found = snapshot_download(repository, allow_patterns=list(files), dry_run=True)
    if not found:
        raise CommandError(f"{repository} has none of {', '.join(files)} on the hub")
    if licence:
        screen.notice(f"{repository}: licence {licence}")
    revision, missing = found[0].commit_hash, [file for file in found if file.will_download]
    size = sum(file.file_size or 0 for file in missing)
    if missing:
        _require_space(folder, size)
        screen.notice(f"{repository}: downloading {size / 1e9:.2f} GB")
        if licence:
            _note(folder, revision, [file.filename for file in missing])
    else:
        screen.notice(f"{repository}: is here already")
    with _hub_errors(repository):
        return revision, Path(snapshot_download(repository, allow_patterns=list(files), revision=revision))


def _note(repository: Path, revision: str, files: Sequence[str]) -> None:
    """Adds to what was pulled before: of this revision, if that broke off, or of an earlier one."""
    noted = _read_note(repository)
    noted[revision] = sorted({*noted.get(revision, ()), *files})
    repository.mkdir(parents=True, exist_ok=True)
    (repository / NOTE).write_text(json.dumps(noted))


def _read_note(repository: Path) -> dict[str, list[str]]:
    """Files by revision."""
    try:
        noted: dict[str, list[str]] = json.loads((repository / NOTE).read_bytes())
    except FileNotFoundError:
        return {}
    return noted


def _links(repository: Path) -> list[Path]:
    return [path for path in repository.glob("snapshots/*/**/*") if path.is_file()]


def _codec_elsewhere(file: Path) -> str | None:
    """The hub's name of the codec, if the file holds no weights but that name."""
    if not zipfile.is_zipfile(file):
        return None  # Whoever loads it says what is wrong with it.
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any("/data/" in name for name in names):
            return None
        pickled = next(name for name in names if name.endswith("/data.pkl"))
        found = CODEC_NAME.search(archive.read(pickled))
    return found[0].decode() if found else None


def _require_space(folder: Path, size: int) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise CommandError(
            f"{size / 1e9:.2f} GB are needed in {there}, {free / 1e9:.2f} GB are free: make room, or set HF_HOME"
        )


def _repository_folder(repository: str) -> Path:
    """Where the Hugging Face cache has it, or would. Raises CommandError where the hub's library is not installed."""
    try:
        from huggingface_hub import constants, file_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise CommandError(
            f"the Hugging Face hub needs {error.name}, which is not installed here; {install_extra_command('musicgen')}"
        ) from error
    if not sys.stderr.isatty():
        disable_progress_bars()
    return Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(repo_id=repository, repo_type="model")


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:  # The hub's library raises its own, its HTTP client's and the system's.
        if constants.is_offline_mode():
            raise CommandError(f"can't pull {repository}: HF_HUB_OFFLINE is set; unset it") from error
        cause = str(error.__cause__ or error).partition("\n")[0]
        raise CommandError(
            f"can't pull {repository} from {constants.ENDPOINT}: {cause}; check the network and try again, "
            "what has come is kept"
        ) from error
