"""Says when a backend leaves the rotation and when it is back: in the log, and in a counter."""

from __future__ import annotations

from collections.abc import Iterable

from foveal.gateway.backends.backend import BackendLoad, BackendState
from foveal.gateway.serving.asking import AttemptMetrics
from foveal.observability.logs import get_logger

__all__ = ["StateWatch"]

_log = get_logger("foveal.gateway")


class StateWatch:
    def __init__(self, metrics: AttemptMetrics) -> None:
        self._metrics = metrics
        self._states: dict[str, BackendState] = {}

    def look(self, loads: Iterable[BackendLoad]) -> None:
        """Called now and then with all backends; what comes and goes between two calls is not seen."""
        states = {load.spec.id: load.state for load in loads}
        for backend, state in states.items():
            before = self._states.get(backend)
            if before is None or before is state:
                continue
            if state is BackendState.EJECTED:
                self._metrics.count("backend_ejections_total", backend)
                _log.warning("backend out of rotation", backend=backend)
            elif state.takes_requests and not before.takes_requests:
                _log.info("backend in rotation", backend=backend)
        self._states = states
