"""What every endpoint of one server needs, made once by `create_app`."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from foveal.core.clock import Clock
from foveal.core.errors import EngineDeadError, ModelNotFoundError, OverloadedError
from foveal.engine.api import EngineClient
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.limits import Admission
from foveal.engine.server.recorder import RequestRecorder
from foveal.observability.metrics import Metrics
from foveal.observability.tracing.tracer import Tracer
from foveal.protocol.remote_image.image_fetcher import ImageFetcher
from foveal.protocol.server_status import ServerStatus

__all__ = ["ServerContext"]


@dataclass(slots=True)
class ServerContext:
    """Lives on one event loop. `wall_time` gives Unix seconds for `created`."""

    engine: EngineClient
    config: ServerConfig
    clock: Clock
    admission: Admission
    fetcher: ImageFetcher
    metrics: Metrics
    recorder: RequestRecorder
    tracer: Tracer | None = None
    wall_time: Callable[[], float] = time.time
    started_s: float = 0.0
    _run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    _serial: itertools.count[int] = field(default_factory=itertools.count)

    def new_id(self) -> str:
        """Unique over restarts; cheaper than a UUID per request."""
        return f"{self._run_id}{next(self._serial):08x}"

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names that a request may use; the first one is the answer's. Raises EngineDeadError while loading."""
        return self.config.served_model_names or (self.engine.model.id,)

    @property
    def status(self) -> ServerStatus:
        if self.admission.in_flight.draining:
            return "draining"
        return "ready" if self.engine.is_ready else "loading"

    def check_ready(self) -> None:
        """Raises OverloadedError (503 with Retry-After) while the engine loads or restarts."""
        if not self.engine.is_ready:
            raise OverloadedError(
                "the engine is loading or restarting; retry in a few seconds, or wait for /ready",
                retry_after_s=max(self.config.retry_after_s, 5.0),
            )

    def check_model(self, name: str) -> None:
        """Raises ModelNotFoundError naming what is there."""
        try:
            names = self.model_names
        except EngineDeadError:
            self.check_ready()
            raise
        if name not in names:
            raise ModelNotFoundError(
                f"model {name[:200]!r} does not exist here; available: {', '.join(names)}", param="model"
            )
