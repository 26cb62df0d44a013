"""Checks the bucket of the library for `dgx-music doctor`."""

from __future__ import annotations

from dgx_music.errors import ServiceError
from export_service.config import ExportSettings
from generation_service.models.finding import Finding


def check_bucket(settings: ExportSettings) -> Finding:
    """Lists, writes, reads, replaces and deletes an object. Says what is missing."""
    from export_service.objects.bucket import Bucket
    from export_service.objects.object_storage_url import find_endpoint
    from export_service.objects.write_check import probe

    found = settings.library_url
    try:
        bucket = Bucket(settings.library_url, settings.library_public_endpoint)
        found = f"{bucket.url} at {find_endpoint() or 'Amazon S3'}"
        probe(bucket)
    except ServiceError as error:
        return Finding("object storage", "broken", found, error.message)
    return Finding("object storage", "ok", f"{found}: can be listed, read, written and deleted")
