"""Which settings the servers get, and which each of them."""

from __future__ import annotations

from pathlib import Path

from gateway.ray.forwarded_settings import merge_settings, select_settings


def test_environment_precedes_the_config_file() -> None:
    variables = {
        "DGX_MUSIC_MAX_WAITING": "8",
        "DGX_MUSIC_PRELOAD": "",
        "DGX_MUSIC_TOKEN": "the client's own",
        "DGX_MUSIC_LISTEN": "0.0.0.0:1",
        "DGX_MUSIC_CONFIG": "/home/me/config.toml",
        "AWS_REGION": "eu-central-1",
        "PATH": "/bin",
    }
    file = {"max_waiting": 4, "reflection": False, "model_folders": ["~/a", "/b"], "token": "t", "audit_log": ""}
    assert merge_settings(variables, file) == {
        "DGX_MUSIC_MAX_WAITING": "8",
        "DGX_MUSIC_REFLECTION": "false",
        "DGX_MUSIC_MODEL_FOLDERS": f"{Path.home()}/a:/b",
        "AWS_REGION": "eu-central-1",
    }


def test_each_service_gets_what_it_reads() -> None:
    settings = dict.fromkeys(
        (
            "DGX_MUSIC_DATABASE_URL",
            "DGX_MUSIC_LEASE_SECONDS",
            "DGX_MUSIC_SERVICE_TOKEN",
            "DGX_MUSIC_EXPORT_ADDRESS",
            "AWS_SECRET_ACCESS_KEY",
            "HF_TOKEN",
            "OTEL_SDK_DISABLED",
        ),
        "x",
    )
    shared = {"DGX_MUSIC_SERVICE_TOKEN", "OTEL_SDK_DISABLED"}
    own = {
        "storage": {"DGX_MUSIC_DATABASE_URL"},
        "export": {"DGX_MUSIC_EXPORT_ADDRESS", "AWS_SECRET_ACCESS_KEY"},
        "generation": {"DGX_MUSIC_EXPORT_ADDRESS", "DGX_MUSIC_LEASE_SECONDS", "HF_TOKEN"},
        "gateway": {"DGX_MUSIC_EXPORT_ADDRESS"},
    }
    assert {service: set(select_settings(settings, service)) - shared for service in own} == own  # type: ignore[arg-type]
