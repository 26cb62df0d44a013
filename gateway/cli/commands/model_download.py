"""Downloads models from the Hugging Face hub to its cache, where the generation service finds them, and
removes them.

`pull` records what it downloaded in the model's folder of the cache, so that `remove` deletes exactly that and nothing
that other programs put there.
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
from pathlib import Path, PurePosixPath

from gateway.cli.display.console import Console, escape_text
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from generation_service.models.published import PUBLISHED, SEPARATOR, PublishedModel
from service_runtime.optional_deps import install_extra_command

LM_FILE, CODEC_FILE = "state_dict.bin", "compression_state_dict.bin"
TEXT_ENCODER = "t5-base"
"""For a checkpoint that does not name its text encoder."""
SAFETENSORS_FILE, PICKLED_FILE = "model.safetensors", "pytorch_model.bin"
NETWORK_FILES = (
    "config.json",
    SAFETENSORS_FILE,
    PICKLED_FILE,
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What is downloaded of a text encoder, a codec, or another network that a model uses; weights in one format."""
PULL_RECORD = "pulled-by-dgx-music.json"
"""JSON: revision → names of the files downloaded."""
CODEC_NAME = re.compile(rb"(?<![\w.-])[\w.-]{1,96}/encodec[\w.-]{0,89}")
"""How a checkpoint without codec weights of its own names the repository that has them."""
TEXT_ENCODER_NAME = re.compile(rb"\bname: ((?:[\w.-]{1,96}/)?(?:flan-)?t5-[\w.-]{1,93})")
"""How the configuration of a checkpoint, which is YAML, names its text encoder."""


def pull(name: str, console: Console) -> None:
    """Downloads the files that the model needs and prints where they are. Raises CommandError if that fails."""
    published = _require_published(name)
    licence = _describe_licence(published)
    revision, folder = _download(published.repository, published.files, console, licence=licence)
    for repository in _required_repositories(published, folder):
        _download(repository, NETWORK_FILES, console)
    if published.follows_melodies and not _repository_folder(SEPARATOR).exists():
        console.print_notice(
            "optional: to hear a melody beneath drums and bass, it needs demucs; run "
            f"{install_extra_command('melody')} and hf download {SEPARATOR}"
        )
    if console.as_json:
        fields = {
            "model": name,
            "is_installed": True,
            "revision": revision,
            "licence": published.licence,
            "folder": str(folder),
        }
        console.print_object(fields)
        return
    console.print_fields(
        (
            ("model", name),
            ("revision", revision),
            ("licence", licence),
            ("folder", escape_text(str(folder))),
            ("use it with", f'dgx-music generate "…" --model {name}'),
        )
    )


def _describe_licence(published: PublishedModel) -> str:
    if published.is_noncommercial:
        return f"{published.licence} (no commercial use of weights and music)"
    return published.licence


def _required_repositories(published: PublishedModel, folder: Path) -> Iterator[str]:
    """The repositories of the networks that the model uses."""
    if LM_FILE in published.files:
        yield find_name(folder / LM_FILE, TEXT_ENCODER_NAME) or TEXT_ENCODER
        if codec := _find_referenced_codec(folder / CODEC_FILE):
            yield codec
    yield from published.requires


@dataclass(frozen=True, slots=True)
class PulledModel:
    """The files of a model that `pull` downloaded to the cache."""

    repository: Path
    """The model's folder in the cache."""
    links: Sequence[Path]
    """The files by name; each is a link to its content, which several revisions may share."""

    @property
    def place(self) -> Path:
        return self.repository

    @property
    def remark(self) -> str:
        return "; a text encoder downloaded with it stays in the Hugging Face cache, where other models may use it"

    @property
    def size_bytes(self) -> int:
        return sum(link.stat().st_size for link in self.links if link.is_file())

    def remove(self) -> None:
        """Deletes the files, and the model's folder if nothing else is in it."""
        for link in self.links:
            content = link.resolve()
            link.unlink(missing_ok=True)
            is_inside = content.is_relative_to(self.repository.resolve())
            if is_inside and not any(other.resolve() == content for other in _links(self.repository)):
                content.unlink(missing_ok=True)
        (self.repository / PULL_RECORD).unlink()
        if not _links(self.repository):
            shutil.rmtree(self.repository)


def find_pulled_model(name: str) -> PulledModel:
    """Returns the files that `pull` downloaded for the model. Raises CommandError if there are none."""
    repository = _repository_folder(_require_published(name).repository)
    record = _read_record(repository)
    if record:
        links = [repository / "snapshots" / revision / file for revision, files in record.items() for file in files]
        return PulledModel(repository, links)
    if _links(repository):
        raise CommandError(f"{name} is in {repository}, but dgx-music did not download it; it was left alone")
    raise CommandError(f"{name} is not installed; list the models with `dgx-music models`")


def _require_published(name: str) -> PublishedModel:
    published = PUBLISHED.get(name)
    if published is None:
        raise CommandError(
            f"NAME: {name[:100]!r} is not an available model; choose from {', '.join(PUBLISHED)}", BAD_INPUT
        )
    return published


def _download(repository: str, files: Sequence[str], console: Console, *, licence: str = "") -> tuple[str, Path]:
    """Downloads the files, and returns the commit that "main" points to and the folder of its files.

    With a licence, it prints the licence first and records the files as pulled.
    """
    folder = _repository_folder(repository)
    with _hub_errors(repository):
        from huggingface_hub import snapshot_download

        # The dry run also records in the cache which commit "main" points to.
        found = snapshot_download(repository, allow_patterns=list(files), dry_run=True)
    if not found:
        raise CommandError(f"the repository {repository} on the hub has none of the files {', '.join(files)}")
    if licence:
        console.print_notice(f"{repository}: licence {licence}")
    if any(file.filename == SAFETENSORS_FILE for file in found):
        found = [file for file in found if file.filename != PICKLED_FILE]
    names = [file.filename for file in found]
    revision, missing = found[0].commit_hash, [file for file in found if file.will_download]
    size = sum(file.file_size or 0 for file in missing)
    if missing:
        require_space(folder, size)
        console.print_notice(f"{repository}: downloading {size / 1e9:.2f} GB")
        if licence:
            _add_to_record(folder, revision, [file.filename for file in missing])
    else:
        console.print_notice(f"{repository}: already downloaded")
    with _hub_errors(repository):
        return revision, Path(snapshot_download(repository, allow_patterns=names, revision=revision))


def _add_to_record(repository: Path, revision: str, files: Sequence[str]) -> None:
    """Adds files to the record, which may already have some of this revision, or of earlier ones."""
    record = _read_record(repository)
    record[revision] = sorted({*record.get(revision, ()), *files})
    repository.mkdir(parents=True, exist_ok=True)
    (repository / PULL_RECORD).write_text(json.dumps(record))


def _read_record(repository: Path) -> dict[str, list[str]]:
    """Returns the recorded files by revision."""
    file = repository / PULL_RECORD
    try:
        record: dict[str, list[str]] = json.loads(file.read_bytes())
        paths = [PurePosixPath(revision, name) for revision, names in record.items() for name in names]
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise CommandError(f"{file} is damaged; delete {repository} yourself to remove the model") from error
    if any(path.is_absolute() or ".." in path.parts for path in paths):
        raise CommandError(f"{file} names files outside its folder; delete {repository} yourself to remove the model")
    return record


def _links(repository: Path) -> list[Path]:
    return [path for path in repository.glob("snapshots/*/**/*") if path.is_file()]


def _find_referenced_codec(file: Path) -> str | None:
    """Returns the codec's repository if the file only names it instead of holding weights."""
    try:
        with zipfile.ZipFile(file) as archive:
            if any("/data/" in name for name in archive.namelist()):
                return None
    except zipfile.BadZipFile:  # Loading it reports what is wrong.
        return None
    return find_name(file, CODEC_NAME)


def find_name(file: Path, pattern: re.Pattern[bytes]) -> str | None:
    """Returns the first name that matches in a checkpoint's pickle, which is searched as bytes."""
    try:
        with zipfile.ZipFile(file) as archive:
            pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            found = pattern.search(archive.read(pickled)) if pickled else None
    except zipfile.BadZipFile:  # Loading it reports what is wrong.
        return None
    return found[found.re.groups].decode() if found else None


def require_space(folder: Path, size: int) -> None:
    """Raises CommandError if the disk has less than `size` bytes free."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise CommandError(
            f"{folder.name} needs {size / 1e9:.2f} GB, but {existing} has only {free / 1e9:.2f} GB free; free up disk "
            "space, or set HF_HOME to another disk"
        )


def _repository_folder(repository: str) -> Path:
    """Returns the folder of a repository in the cache. Raises CommandError if the hub's library is not installed."""
    try:
        from huggingface_hub import constants, file_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise CommandError(
            f"downloading requires {error.name}, which is not installed; run {install_extra_command('musicgen')}"
        ) from error
    if not sys.stderr.isatty():
        disable_progress_bars()
    return Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(repo_id=repository, repo_type="model")


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:  # The library raises its own errors, its HTTP client's and the system's.
        if constants.is_offline_mode():
            raise CommandError(f"failed to download {repository} because HF_HUB_OFFLINE is set; unset it") from error
        cause = str(error.__cause__ or error).partition("\n")[0]
        raise CommandError(
            f"failed to download {repository} from {constants.ENDPOINT}: {cause}; check the network and try again "
            "(files already downloaded are kept)"
        ) from error
