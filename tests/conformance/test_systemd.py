"""deploy/systemd: the units are valid, nearly closed, and alike."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.systemd_units import FOLDER, INSTALLED, UNITS, read_unit

MAX_EXPOSURE = "25"
"""In tenths: 2.5 of 10."""
NEEDS_SYSTEMD = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
SERVES = {"dgx-music": "serve"} | {
    f"dgx-music-{name}": f"serve {name.rstrip('@')}"
    for name in ("storage", "export", "generation", "generation@", "gateway")
}


def analyze(*arguments: str) -> str:
    """Runs systemd-analyze, which must succeed; returns what it prints."""
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@NEEDS_SYSTEMD
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_exposure_is_low(unit: Path) -> None:
    analyze("security", "--offline=true", f"--threshold={MAX_EXPOSURE}", str(unit))


@NEEDS_SYSTEMD
def test_units_are_valid(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("dgx-music"))
    copies = [tmp_path / unit.name.replace("@.", "@0.") for unit in UNITS]
    for unit, copy in zip(UNITS, copies, strict=True):
        copy.write_text(unit.read_text().replace(INSTALLED, program))
    output = analyze("verify", *map(str, copies))
    assert not [line for line in output.splitlines() if "dgx-music" in line]


def test_each_service_has_a_unit_and_an_account_of_its_own() -> None:
    units = {unit.stem: read_unit(unit) for unit in UNITS}
    assert {name: unit["ExecStart"] for name, unit in units.items()} == {
        name: [f"{INSTALLED} {command}"] for name, command in SERVES.items()
    }
    accounts = [line.split()[1] for line in (FOLDER / "dgx-music.sysusers").read_text().splitlines() if line[0] == "u"]
    assert sorted(accounts) == sorted({name.rstrip("@") for name in units})
    for name, unit in units.items():
        assert unit["User"] == unit["Group"] == unit["StateDirectory"] == [name.rstrip("@")]
        assert unit["Type"] == ["notify"]


def test_only_generation_reaches_devices_and_none_a_network() -> None:
    for unit in UNITS:
        settings = read_unit(unit)
        has_gpu = unit.stem in ("dgx-music", "dgx-music-generation", "dgx-music-generation@")
        assert ("DeviceAllow" in settings) == has_gpu
        assert settings.get("PrivateDevices") == (None if has_gpu else ["yes"])
        assert settings["IPAddressDeny"] == ["any"]
        assert settings["IPAddressAllow"] == ["localhost"]
        assert settings["CapabilityBoundingSet"] == [""]
        assert settings["UMask"] == ["0077"]


def test_drop_in_opens_the_network_of_the_machines_alone() -> None:
    (network,) = read_unit(FOLDER / "network.conf")["IPAddressAllow"]
    assert ipaddress.ip_network(network).is_private


def test_template_has_a_gpu_and_a_socket_of_its_own() -> None:
    template, unit = (read_unit(FOLDER / f"dgx-music-generation{sign}.service") for sign in ("@", ""))
    changed = {name for name in template.keys() | unit.keys() if template.get(name) != unit.get(name)}
    assert changed == {
        "Description",
        "After",
        "Wants",
        "Environment",
        "EnvironmentFile",
        "RuntimeDirectory",
        "RuntimeDirectoryMode",
    }
    assert "CUDA_VISIBLE_DEVICES=%i" in template["Environment"][1].split()
    assert "DGX_MUSIC_LISTEN=unix:%t/dgx-music-generation-%i/socket" in template["Environment"][1].split()
    assert template["RuntimeDirectory"] == ["dgx-music-generation-%i"]
