"""Skip the blocks before a changed one: they return what they returned the first time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["LayerReplay"]


class LayerReplay:
    """Outputs of a stack's blocks, recorded call by call.

    Memory: one [tokens, hidden] tensor per block and call. The stack around the blocks (embeddings, rotary tables, final
    norm, what is added between blocks) runs as always, so a replay works for every architecture that calls its blocks in
    order.
    """

    def __init__(self, blocks: Sequence[torch.nn.Module]) -> None:
        self._blocks = list(blocks)
        self._outputs: list[list[Any]] = [[] for _ in self._blocks]

    def __len__(self) -> int:
        return len(self._blocks)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Calls of the blocks while this is active are what `from_block` replays, in the same order."""
        for outputs in self._outputs:
            outputs.clear()
        handles = [
            block.register_forward_hook(lambda _module, _args, output, kept=outputs: kept.append(_copy(output)))
            for block, outputs in zip(self._blocks, self._outputs, strict=True)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def from_block(self, first: int) -> Iterator[None]:
        """Blocks before `first` compute nothing while this is active; `len(self)` skips all of them."""
        skipped = self._blocks[:first]
        for block, outputs in zip(skipped, self._outputs, strict=False):
            block.forward = _Recorded(outputs)
        try:
            yield
        finally:
            for block in skipped:
                del block.forward


class _Recorded:
    """A block's `forward` that answers its n-th call with the n-th recorded output."""

    def __init__(self, outputs: Sequence[Any]) -> None:
        self._outputs = iter(outputs)

    def __call__(self, *_: Any, **__: Any) -> Any:
        return _copy(next(self._outputs))


def _copy(output: Any) -> Any:
    """Stacks may change a block's output in place (deepstack does)."""
    if isinstance(output, torch.Tensor):
        return output.clone()
    return tuple(_copy(part) for part in output) if isinstance(output, tuple) else output
