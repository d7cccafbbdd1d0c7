"""What the gateway changes in a body so that tenants stay apart on a shared backend."""

from __future__ import annotations

import hashlib

from foveal.core.priority import Priority
from foveal.gateway.request.view import RequestView
from foveal.gateway.serving.splicing import Splice, inserted_field
from foveal.gateway.tenancy.tenant import Tenant

__all__ = ["granted_priority", "priority_splice", "salt_splice", "tenant_salt"]


def granted_priority(asked: Priority | None, tenant: Tenant) -> Priority:
    """P1 where nothing is asked, never better than the tenant's best."""
    return max(Priority.P1 if asked is None else asked, tenant.best_priority)


def priority_splice(view: RequestView, granted: Priority) -> Splice | None:
    """Our engine lets the body's value win over X-Priority, so that it must say what was granted."""
    if view.priority_end == 0:
        return None
    return Splice(view.priority_start, view.priority_end, str(int(granted)).encode())


def tenant_salt(tenant: Tenant, salt: str | None) -> str:
    """Equal for equal tenants and salts only. The tenant comes first and ids hold no zero: nobody can choose a salt that
    gives another tenant's."""
    text = f"{tenant.id}\0{salt or ''}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=b"foveal salt").hexdigest()


def salt_splice(body: bytearray, view: RequestView, tenant: Tenant) -> Splice:
    """A backend's prefix cache is shared only within the salt: no tenant learns from timing what another one asked."""
    salt = tenant_salt(tenant, view.cache_salt)
    if view.cache_salt_end:
        return Splice(view.cache_salt_start, view.cache_salt_end, f'"{salt}"'.encode())
    return inserted_field(body, "cache_salt", salt)
