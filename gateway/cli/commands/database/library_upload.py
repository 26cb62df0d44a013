"""`dgx-music files upload-to`: copies the library from its folder into a bucket, and records where the files are."""

from __future__ import annotations

from pathlib import Path

from dgx_music.errors import FailedPrecondition
from export_service.library.inventory import FileKind, Inventory, LibraryFile
from export_service.library.manifests import manifest_path
from export_service.library.renders import RenderStore
from export_service.library.store import Library, read_attempt
from export_service.objects.bucket import Bucket
from export_service.objects.library_objects import SHA256, Upload, describe_render
from export_service.objects.object_errors import ObjectMissing
from export_service.objects.object_keys import ObjectKey
from export_service.objects.object_storage_url import ObjectStorageUrl
from export_service.objects.write_check import probe
from gateway.cli.commands.database.db import Result
from gateway.cli.commands.serve import acquire_ownership, resolve_settings
from gateway.cli.display.units import format_size
from storage_service.config import StorageSettings
from storage_service.db.database import Database
from storage_service.maintenance.file_records import record_file_path


def upload_library(data_dir: Path | None, url: str) -> Result:
    """Uploads every file that the bucket does not have yet. The folder remains as it is.

    Raises CommandError if a server is using the data directory, FailedPrecondition, and errors of disk and storage.
    """
    ObjectStorageUrl.parse(url, "URL")
    settings = StorageSettings(data_dir=resolve_settings(data_dir).data_dir)
    bucket, counts = Bucket(url), {"uploaded": 0, "uploaded_bytes": 0, "present": 0}
    with (
        acquire_ownership(settings.data_dir),
        Database(settings.resolved_database_url(), busy_timeout_seconds=settings.database_timeout_seconds) as database,
    ):
        probe(bucket)
        folder, library = settings.data_dir, Library(settings.data_dir)
        for file in Inventory(folder).iter_files():
            upload = _prepare(file, library, RenderStore(folder))
            if upload is None:
                continue  # A render of nothing, or one that another version has described.
            if _is_present(bucket, upload):
                counts["present"] += 1
            else:
                upload.send(bucket)
                counts["uploaded"] += 1
                counts["uploaded_bytes"] += file.size_bytes
            if file.kind is FileKind.OUTPUT:
                record_file_path(database, file.generation_id, library.relative_path(file.path), str(upload.key))
    size = format_size(counts["uploaded_bytes"])
    line = (
        f"uploaded {counts['uploaded']} files ({size}) to {bucket.url}; {counts['present']} were there already. "
        f"Now set DGX_MUSIC_LIBRARY_URL={bucket.url} and run `dgx-music db check --files`. If it finds no problem, "
        f"delete outputs, clips and renders in {settings.data_dir}"
    )
    return Result(line, counts)


def _prepare(file: LibraryFile, library: Library, renders: RenderStore) -> Upload | None:
    description, attempt = "", 0
    if file.kind is not FileKind.CLIP:
        source = library.find(file.generation_id)
        if source is None:
            return None
        attempt = read_attempt(source)
    if file.kind is FileKind.RENDER:
        render = renders.load(file.generation_id, file.render_id)
        if render is None:
            return None
        description = describe_render(render.file)
    key = ObjectKey(file.kind, file.generation_id, attempt, file.render_id, file.path.suffix)
    return Upload.prepare(key, file.path, description, manifest_path(file.path))


def _is_present(bucket: Bucket, upload: Upload) -> bool:
    try:
        found = [bucket.head(key)[1] for key in upload.keys]
    except ObjectMissing:
        return False
    if found[0].get(SHA256) != upload.sha256:
        problem = f"{bucket.url} has another {upload.key}; choose a bucket or a prefix without a library"
        raise FailedPrecondition(problem, reason="FILE_EXISTS")
    return True
