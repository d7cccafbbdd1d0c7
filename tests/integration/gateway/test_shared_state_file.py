"""Two processes on one state file: nothing is lost, and each sees what the other does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foveal.core.errors import UnauthorizedError
from foveal.gateway.config.load import parse_config
from foveal.gateway.tenancy.tenancy import Tenancy

NOON = 20_000 * 86_400.0 + 43_200
CONFIG = "models: {m: ['http://h:1']}\nstate: s.db\ntenants: {acme: {limits: {tokens_per_day: 1000000}}}"
WORKER = f"""
import asyncio, sys
from pathlib import Path
from foveal.gateway.config.load import parse_config
from foveal.gateway.tenancy.key_store import KeyStore
from foveal.gateway.tenancy.tenancy import Tenancy
from foveal.gateway.pricing.price import Price

async def main():
    config = parse_config({CONFIG!r}, directory=Path(sys.argv[1]))
    tenancy = Tenancy(config, wall_s=lambda: {NOON})
    await tenancy.open()
    print("ready", flush=True)
    sys.stdin.readline()
    acme = config.tenants["acme"]
    for number in range(200):
        reservation = tenancy.limiter.reserve(acme, Price(10, 0, 1.0), 0.0)
        reservation.settle(7, 1)
        reservation.release()
        tenancy.feedback.add("acme", f"{{sys.argv[2]}}-{{number}}", 1.0, "", 1.0)
        if number % 10 == 0:
            key = await tenancy.database.run(lambda c: KeyStore(c).create("acme", sys.argv[2], 1.0, log2_n=4))
            await tenancy.refresh()
    await tenancy.close()
    print(key.text, flush=True)

asyncio.run(main())
"""


def start(directory: Path, name: str) -> subprocess.Popen[str]:
    source = str(Path(__file__).parents[3] / "src")
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(directory), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


def line_of(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline().strip()
    if not line:
        pytest.fail(worker.communicate(timeout=30)[1])
    return line


async def test_two_gateways_share_quotas_keys_and_feedback_without_losing_any(tmp_path: Path) -> None:
    workers = [start(tmp_path, name) for name in ("one", "two")]
    try:
        # Both migrate the new file at the same moment.
        assert [line_of(worker) for worker in workers] == ["ready", "ready"]
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        keys = [line_of(worker) for worker in workers]
        outputs = [worker.communicate(timeout=60) for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], outputs
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    tenancy = Tenancy(parse_config(CONFIG, directory=tmp_path), wall_s=lambda: NOON)
    await tenancy.open()
    assert tenancy.daily.used("acme", tenancy.daily.today()) == (400, 400 * 8)
    assert len(await tenancy.feedback.latest(limit=1000)) == 400
    for key in keys:
        assert (await tenancy.authenticate({b"x-api-key": key.encode()})).id == "acme"
    await tenancy.close()


async def test_a_key_made_and_revoked_by_the_command_is_seen_by_a_running_gateway(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(CONFIG)
    tenancy = Tenancy(parse_config(CONFIG, directory=tmp_path))
    await tenancy.open()

    def foveal(*arguments: str) -> str:
        command = [sys.executable, "-m", "foveal.cli.app", "keys", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    key = foveal("create", str(tmp_path / "g.yaml"), "--tenant", "acme")
    headers = {b"authorization": b"Bearer " + key.encode()}
    assert (await tenancy.authenticate(headers)).id == "acme"
    assert "works" in foveal("list", str(tmp_path / "g.yaml"))
    foveal("revoke", str(tmp_path / "g.yaml"), key.split("_")[1])
    await tenancy.refresh()
    with pytest.raises(UnauthorizedError):
        await tenancy.authenticate(headers)
    await tenancy.close()
