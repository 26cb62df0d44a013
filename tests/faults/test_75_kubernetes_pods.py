"""The pods of deploy/kubernetes as plain processes, with their commands, variables, volumes, secrets and probes: they
become ready, make music, and end within the time that they are given."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psycopg
import pytest

from dgx_music import AsyncClient
from tests.support.kubernetes_manifests import Cluster, build, of_kind
from tests.support.postgres import scratch_database
from tests.support.s3_server import S3Server
from tests.support.tls_files import LOOPBACK, make_tls_files

SERVICE_TOKEN = {"token": secrets.token_hex(32)}
TOKEN_COMMAND = "DGX_MUSIC_TOKEN_FILE=$DGX_MUSIC_SERVICE_TOKEN_FILE dgx-music token create laptop"
NETWORK = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
"""Of the pods."""


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[None]:
    """Starts all pods at once, as Kubernetes does, and waits until they are ready; ends them with the block."""
    try:
        async with asyncio.TaskGroup() as group:
            for pod in cluster.pods:
                group.create_task(cluster.start(pod))
        await asyncio.gather(*(pod.wait_until_ready() for pod in cluster.pods))
        yield
        assert {await pod.check("livenessProbe") for pod in cluster.pods} == {"SERVING"}
        statuses = await asyncio.gather(*(pod.end() for pod in cluster.pods))
        assert set(statuses) == {0}, b"".join(pod.log for pod in cluster.pods if pod.process).decode()
    except BaseException:
        print(*(f"{pod.name}: {pod.log.decode()}" for pod in cluster.pods), sep="\n")  # pytest shows it.
        raise
    finally:
        cluster.kill()


@pytest.mark.slow
async def test_single_host(tmp_path: Path) -> None:
    cluster = Cluster(build("single-host"), tmp_path, {"service-token": SERVICE_TOKEN}, network=NETWORK)
    async with running(cluster):
        gateway = cluster.of("gateway")[0]
        token = await cluster.execute(gateway, "sh", "-c", TOKEN_COMMAND)
        async with AsyncClient(f"{gateway.ip}:50050", token=token) as client:
            made = await client.generate("techno at 130 BPM", duration=1.0)
        (export,) = cluster.of("export")
        assert (export.folder / "data" / str(made.file_path)).is_file()


@pytest.mark.slow
async def test_many_hosts_while_each_pod_is_replaced(
    tmp_path: Path, postgres: psycopg.Connection[Any], s3: S3Server, bucket: str
) -> None:
    objects = build("many-hosts-tls-keda")
    storage_settings = s3.settings(bucket, prefix="library")
    keys = storage_settings.pop("AWS_ACCESS_KEY_ID"), storage_settings.pop("AWS_SECRET_ACCESS_KEY")
    with scratch_database(postgres) as url:
        cluster = Cluster(
            objects,
            tmp_path,
            {
                "service-token": SERVICE_TOKEN,
                "database": {"url": url},
                "object-storage": {
                    "credentials": f"[default]\naws_access_key_id = {keys[0]}\naws_secret_access_key = {keys[1]}\n"
                },
                "tls": tls_secret(tmp_path),
            },
            overrides=storage_settings,
            network=NETWORK,
        )
        async with running(cluster):
            gateways = cluster.of("gateway")
            token = await cluster.execute(gateways[0], "sh", "-c", TOKEN_COMMAND)
            addresses = "ipv4:" + ",".join(f"{pod.ip}:50050" for pod in gateways)
            async with AsyncClient(addresses, token=token, tls_ca=tmp_path / "tls/ca.pem") as client:
                await client.generate("techno at 130 BPM", duration=1.0)
                before = read_scaling_metrics(cluster)
                assert before == [{"pending": 0.0, "processing": 0.0}] * 2
                # kubectl rollout restart, of the first pod of each, while there is work.
                created = [await client.submit(f"house {number}", duration=5.0) for number in range(12)]
                for name in ("storage", "export", "gateway", "generation"):
                    pod = cluster.of(name)[0]
                    assert await pod.end() == 0, pod.log.decode()
                    await cluster.start(pod)
                    await pod.wait_until_ready()
                for one in created:
                    finished = await one.wait()
                    assert finished.state == "completed"
                    assert len(await finished.read()) == finished.message.file_size_bytes
        assert {pod.process.returncode for pod in cluster.pods if pod.process} == {0}
    stored = [item["path"] for batch in s3.store(bucket).list("library/outputs/") for item in batch]
    assert len(stored) == 13


def tls_secret(folder: Path) -> dict[str, str]:
    """What cert-manager puts into the secret, with certificates for the addresses that the pods have here."""
    tls = make_tls_files(folder / "tls")
    tls.issue((*LOOPBACK, *(f"{NETWORK}.{number}" for number in range(1, 20))))
    names = {"tls.crt": "server.pem", "tls.key": "server.key", "ca.crt": "ca.pem"}
    return {key: (tls.folder / name).read_text() for key, name in names.items()}


def read_scaling_metrics(cluster: Cluster) -> list[dict[str, float]]:
    """Reads what KEDA asks for from each storage server, at its URL and with its host name."""
    found = []
    triggers = of_kind(cluster.objects, "ScaledObject")["generation"]["spec"]["triggers"]
    for pod in cluster.of("storage"):
        values = {}
        for trigger in triggers:
            url = urlsplit(trigger["metadata"]["url"])
            assert pod in cluster.behind(str(url.hostname).partition(".")[0], 50052)
            request = Request(f"http://{pod.ip}:{url.port}{url.path}", headers={"Host": url.netloc})
            with urlopen(request, timeout=60) as answer:
                lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
            values[trigger["name"]] = float(lines[trigger["metadata"]["valueLocation"]])
        found.append(values)
    return found
