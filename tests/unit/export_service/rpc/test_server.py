"""Building and checking the export service, without serving it."""

from __future__ import annotations

import pytest

from dgx_music.errors import FailedPrecondition
from export_service.config import ExportSettings
from export_service.rpc.server import build
from tests.support.certificates import make_credentials


async def test_check_fails_without_library_folder(tmp_path):
    service = build(ExportSettings(data_dir=tmp_path))
    await service.start()
    await service.check()
    (tmp_path / "outputs").rename(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="library's disk failed"):
        await service.check()
    await service.drain()
    await service.stop()


def test_build_rejects_certificate_that_can_not_sign(tmp_path, monkeypatch):
    credentials, other = make_credentials(tmp_path), make_credentials(tmp_path, name="other")
    monkeypatch.setenv("DGX_MUSIC_C2PA_CERTIFICATE", str(credentials.certificate))
    monkeypatch.setenv("DGX_MUSIC_C2PA_PRIVATE_KEY", str(other.private_key))
    with pytest.raises(FailedPrecondition, match=r"signer\.pem and .*other\.key can't sign: "):
        build(ExportSettings(data_dir=tmp_path))
