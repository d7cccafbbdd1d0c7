from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from foveal.core.priority import Priority
from foveal.gateway.request.read_view import read_view
from foveal.gateway.serving.isolation import granted_priority, priority_splice, salt_splice, tenant_salt
from foveal.gateway.serving.splicing import spliced
from foveal.gateway.tenancy.tenant import Tenant

NAMES = st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)
SALTS = st.none() | st.text(max_size=20)


@given(NAMES, SALTS, NAMES, SALTS)
def test_salts_are_equal_only_for_the_same_tenant_and_salt(a: str, x: str | None, b: str, y: str | None) -> None:
    equal = tenant_salt(Tenant(a), x) == tenant_salt(Tenant(b), y)
    assert equal == ((a, x or "") == (b, y or ""))


@given(st.text(max_size=20) | st.none(), st.sampled_from([None, 0, 2, "P1"]))
def test_the_body_that_leaves_says_the_tenant_s_salt_and_the_granted_class(
    salt: str | None, priority: int | str | None
) -> None:
    fields = {"model": "m", "messages": [{"role": "user", "content": "cache_salt"}]}
    extra = {"cache_salt": salt, "priority": priority}
    sent = {**fields, **{name: value for name, value in extra.items() if value is not None}}
    body = bytearray(json.dumps(sent).encode())
    view = read_view(body, {}, "chat")
    tenant = Tenant("a", best_priority=Priority.P1)
    granted = granted_priority(view.priority, tenant)
    clamped = priority_splice(view, granted)
    parts = spliced(body, [salt_splice(body, view, tenant), *([clamped] if clamped else [])])
    expected = {**sent, "cache_salt": tenant_salt(tenant, salt)}
    if priority is not None:
        expected["priority"] = int(granted)
    assert json.loads(b"".join(parts)) == expected


def test_a_class_is_never_better_than_the_tenant_s_and_p1_where_nothing_is_asked() -> None:
    best = Tenant("a", best_priority=Priority.P0)
    batch = Tenant("b", best_priority=Priority.P2)
    asked = (None, Priority.P0, Priority.P1, Priority.P2)
    assert [granted_priority(one, best) for one in asked] == [1, 0, 1, 2]
    assert [granted_priority(one, batch) for one in asked] == [2, 2, 2, 2]
