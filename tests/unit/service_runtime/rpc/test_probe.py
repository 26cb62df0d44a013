"""The command of the health probe, before it connects."""

from __future__ import annotations

import pytest

from service_runtime.rpc.probe import main


def test_without_an_address_it_says_how_it_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["probe"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "HOST:PORT" in capsys.readouterr().err
