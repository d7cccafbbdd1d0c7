"""Where the time of a step goes: the parts of an engine loop, each timed from outside, while a `with` block runs.

Nothing is in the loop itself, so nothing is paid when nobody measures.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from foveal.engine.execution import runner as runner_module
from foveal.engine.loop import EngineLoop

__all__ = ["KERNEL_SPANS", "SpanTimes", "watched"]

KERNEL_SPANS = frozenset({"decoder", "embedding", "logits", "vision"})
"""Parts whose time is arithmetic; the rest is what serving adds."""


@dataclass
class SpanTimes:
    """Seconds by part, without the parts inside it; `calls` by part."""

    self_s: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    _inside: list[float] = field(default_factory=list)

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        self._inside.append(0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            inside = self._inside.pop()
            if self._inside:
                self._inside[-1] += elapsed
            self.self_s[name] = self.self_s.get(name, 0.0) + elapsed - inside
            self.calls[name] = self.calls.get(name, 0) + 1

    def reset(self) -> None:
        """Forget what was measured; not inside a span."""
        self.self_s.clear()
        self.calls.clear()

    @property
    def total_s(self) -> float:
        return sum(self.self_s.values())

    @property
    def outside_kernels_s(self) -> float:
        return sum(seconds for name, seconds in self.self_s.items() if name not in KERNEL_SPANS)


Enter = Callable[[str], Any]
"""Name of a part -> context manager."""


@contextlib.contextmanager
def watched(loop: EngineLoop, enter: Enter) -> Iterator[None]:
    """Run `enter(part)` around every part of `loop`'s steps: `SpanTimes.span`, or torch.profiler.record_function.

    Parts: step, schedule, execute, build_batch, vision, embedding, decoder, model (the rest of forward), logits, sample,
    commit, publish.
    """
    model = loop.runner.model
    with contextlib.ExitStack() as stack:

        def watch(owner: object, method: str, part: str) -> None:
            stack.enter_context(_replaced(owner, method, _entering(getattr(owner, method), enter, part)))

        watch(loop, "step", "step")
        watch(loop.scheduler, "schedule", "schedule")
        watch(loop.scheduler, "commit", "commit")
        watch(loop, "_publish", "publish")
        watch(loop.runner, "execute", "execute")
        watch(runner_module, "build_step", "build_batch")
        watch(model, "encode_images", "vision")
        watch(model, "forward", "model")
        watch(model, "_embed_step", "embedding")
        watch(model, "compute_logits", "logits")
        watch(loop.runner._sampler, "sample", "sample")
        for decoder in ("native", "fused"):
            if getattr(model, decoder, None) is not None:
                watch(model, decoder, "decoder")
        if getattr(model, "native", None) is None and getattr(model, "fused", None) is None:
            watch(model._stack, "forward", "decoder")  # type: ignore[attr-defined]
        yield


class _Watched:
    """A callable object with its attributes; calls are entered."""

    def __init__(self, target: Any, enter: Enter, part: str) -> None:
        self._target, self._enter, self._part = target, enter, part

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._enter(self._part):
            return self._target(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _entering(target: Any, enter: Enter, part: str) -> Any:
    return _Watched(target, enter, part)


_MISSING = object()


@contextlib.contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Set an attribute of the object itself and put back what was there: nothing, where it was its class's."""
    if isinstance(owner, torch.nn.Module):
        before = owner.__dict__.get(name, _MISSING)
        owner.__dict__[name] = value
    else:
        before = vars(owner).get(name, _MISSING)
        setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _MISSING:
            delattr(owner, name) if not isinstance(owner, torch.nn.Module) else owner.__dict__.pop(name)
        else:
            owner.__dict__[name] = before
