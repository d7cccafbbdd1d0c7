from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.serving.forwarder import Forwarder
from foveal.gateway.wire.upstream import UpstreamError, UpstreamTimeouts
from support.gateway_call import make_call

SPEC = BackendSpec("b0", "http://x", "vlm")


class DeadClient:
    """Reaches nobody, and remembers how long it might have waited."""

    def __init__(self) -> None:
        self.timeouts: list[UpstreamTimeouts] = []

    async def send(
        self,
        backend: BackendSpec,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: Sequence[Any],
        timeouts: UpstreamTimeouts,
    ) -> Any:
        self.timeouts.append(timeouts)
        raise UpstreamError("nobody is there", "connect")

    async def aclose(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(("stream", "first_byte_s"), [(True, 120.0), (False, 500.0)])
async def test_without_a_stream_the_first_byte_may_take_all_that_is_left_of_the_total_time(
    stream: bool, first_byte_s: float
) -> None:
    client = DeadClient()
    call = make_call(stream=stream, arrival_s=0.0)  # its deadline is at 600 s
    with pytest.raises(UpstreamError):
        await Forwarder(client).ask(call, SPEC, 100.0)
    assert client.timeouts == [UpstreamTimeouts(first_byte_s=first_byte_s)]
