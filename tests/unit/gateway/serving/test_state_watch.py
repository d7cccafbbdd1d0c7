from __future__ import annotations

from foveal.gateway.backends.backend import BackendLoad, BackendSpec, BackendState
from foveal.gateway.serving.state_watch import StateWatch

SPEC = BackendSpec("a", "http://x", "vlm")


class Counts:
    def __init__(self) -> None:
        self.counted: list[tuple[str, ...]] = []

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        self.counted.append((name, *labels))

    def backend_finished(self, backend: str, result: str, first_byte_s: float | None = None) -> None:
        raise AssertionError("no attempt was made")


def test_each_ejection_is_counted_once_and_a_backend_that_was_never_up_is_not() -> None:
    counts = Counts()
    watch = StateWatch(counts)
    for state in (
        BackendState.STARTING,
        BackendState.UP,
        BackendState.EJECTED,
        BackendState.EJECTED,
        BackendState.RETURNING,
        BackendState.UP,
        BackendState.EJECTED,
    ):
        watch.look([BackendLoad(SPEC, state)])
    assert [name for name, *_ in counts.counted] == ["backend_ejections_total"] * 2
    watch.look([])
    watch.look([BackendLoad(SPEC, BackendState.EJECTED)])
    assert len(counts.counted) == 2
