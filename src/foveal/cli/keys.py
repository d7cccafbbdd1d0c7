"""foveal keys create | list | revoke"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from foveal.cli.wide_console import wide_console
from foveal.core.errors import ConfigurationError
from foveal.gateway.config.load import load_config
from foveal.gateway.state.connection import open_connection
from foveal.gateway.state.schema import MIGRATIONS
from foveal.gateway.tenancy.api_key import KeyRecord
from foveal.gateway.tenancy.key_store import KeyStore

__all__ = ["command"]

_DAY_S = 86_400
command = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Make, list and revoke the API keys of a gateway's tenants."
)
State = Annotated[Path, typer.Argument(help="The gateway's configuration, or its state file.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


class _AnyEnvironment(dict[str, str]):
    """Secrets are not needed here: what is not set reads "1"."""

    def get(self, name: str, default: str | None = None) -> str:  # type: ignore[override]
        return os.environ.get(name, default if default is not None else "1")


@command.command()
def create(
    file: State,
    tenant: Annotated[str, typer.Option(help="Whose key it is: a tenant of the configuration.")],
    name: Annotated[str, typer.Option(help="A note to tell keys apart, e.g. the service that uses it.")] = "",
    expires_days: Annotated[
        float | None, typer.Option(min=0.001, help="The key stops working after so many days.  [default: never]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once: only a slow hash of it is stored. A running gateway takes it at once.

    Example: foveal keys create gateway.yaml --tenant acme --name checkout
    """
    now = time.time()
    expires_at = None if expires_days is None else now + expires_days * _DAY_S
    with _store(file, tenant) as store:
        new = store.create(tenant, name, now, expires_at=expires_at)
    if as_json:
        print(json.dumps({"key": new.text, **_record(new.record)}))
        return
    print(new.text)
    Console(stderr=True).print(
        f"key {new.record.id} of tenant {tenant}; it is not shown again", highlight=False, soft_wrap=True
    )


@command.command("list")
def list_keys(
    file: State,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: AsJson = False,
) -> None:
    """List keys: who has them, when they were last used, whether they still work.

    Example: foveal keys list gateway.yaml
    """
    with _store(file) as store:
        records = store.all(tenant)
    if as_json:
        print(json.dumps([_record(record) for record in records], indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "tenant", "name", "made", "last used", "state"):
        table.add_column(column)
    for record in records:
        table.add_row(
            record.id,
            record.tenant,
            record.name,
            _day(record.created_at),
            _day(record.last_used_at),
            _state(record),
        )
    wide_console().print(table)


@command.command()
def revoke(
    file: State,
    key_id: Annotated[str, typer.Argument(help="The key's id, from `foveal keys list`.", metavar="ID")],
    as_json: AsJson = False,
) -> None:
    """Stop a key from working, for good. A running gateway refuses it within a second.

    Example: foveal keys revoke gateway.yaml 5f0c1a2b3d4e
    """
    with _store(file) as store:
        record = store.revoke(key_id, time.time())
    print(json.dumps(_record(record)) if as_json else f"revoked key {record.id} of tenant {record.tenant}")


@contextmanager
def _store(file: Path, tenant: str | None = None) -> Iterator[KeyStore]:
    """Raises ConfigurationError for a file that is neither a configuration nor a state file, or without that tenant."""
    state = file
    if file.suffix in (".yaml", ".yml"):
        config = load_config(file, _AnyEnvironment())
        if config.state is None:
            raise ConfigurationError(f"{file} names no state file, where keys are kept; add `state: gateway.db`")
        if tenant is not None and tenant not in config.tenants:
            known = ", ".join(sorted(config.tenants)) or "none"
            raise ConfigurationError(f"{file} has no tenant {tenant}; known: {known}. Add it under `tenants`")
        state = config.state
    elif not file.is_file():
        raise ConfigurationError(f"there is no file {file}; give the gateway's configuration (gateway.yaml)")
    connection = open_connection(state, MIGRATIONS)
    try:
        yield KeyStore(connection)
    finally:
        connection.close()


def _record(record: KeyRecord) -> dict[str, str | float | None]:
    return {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "last_used_at": record.last_used_at,
        "state": _state(record),
    }


def _state(record: KeyRecord) -> str:
    if record.revoked_at is not None:
        return f"revoked {_day(record.revoked_at)}"
    if record.expires_at is None:
        return "works"
    return f"{'works until' if record.is_valid(time.time()) else 'expired'} {_day(record.expires_at)}"


def _day(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
