"""Walk a model block by block with the inputs that its blocks get on calibration data.

The hidden states that enter a block are held for all samples; what its linears receive is only summed. A block then runs
again with its rounded weights, and its outputs enter the next. Blocks are called as transformers called them: arguments
are recorded once, in one run of the whole stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from foveal.compression.input_statistics import InputStatistics

__all__ = ["Block", "BlockRun", "capture_chain", "collect_statistics", "parts_of"]

_CHAINS = {"layers", "layer", "blocks", "h"}


@dataclass(frozen=True)
class Block:
    """A module that is compressed at once: a layer of a stack, or a projector. `name` is its module name."""

    name: str
    module: torch.nn.Module


@dataclass
class _Call:
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    added: torch.Tensor | None = None
    """What the model adds between the block before and this one (deepstack)."""


@dataclass
class BlockRun:
    """One pass of some samples through a chain of blocks (or through a single one)."""

    batch: int
    hidden: torch.Tensor
    """Enters the next block to run."""
    calls: list[_Call] = field(default_factory=list)
    context: Callable[[], AbstractContextManager[None]] = nullcontext

    def add_plain_call(self) -> None:
        """One more block that is called with the hidden states alone."""
        self.calls.append(_Call((), {}))

    def call(self, position: int, block: Block) -> torch.Tensor:
        """What the block puts out for this pass."""
        call = self.calls[position]
        entering = self.hidden if call.added is None else self.hidden + call.added
        with self.context():
            return _first(block.module(entering, *call.arguments, **call.options))


def parts_of(model: torch.nn.Module, skip: torch.nn.Module | None) -> tuple[list[list[Block]], list[Block]]:
    """(stacks of layers, single modules with linears) of `model`, in its order, without what lies inside `skip`."""
    chains: list[list[Block]] = []
    singles: list[Block] = []

    def visit(name: str, module: torch.nn.Module) -> None:
        if module is skip or not any(isinstance(inner, torch.nn.Linear) for inner in module.modules()):
            return
        children = list(module.named_children())
        if isinstance(module, torch.nn.ModuleList) and name.rpartition(".")[2] in _CHAINS:
            chains.append([Block(f"{name}.{index}", child) for index, child in enumerate(module)])
        elif isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict) or _holds_chain(module, skip):
            for child_name, child in children:
                visit(f"{name}.{child_name}" if name else child_name, child)
        else:
            singles.append(Block(name, module))

    visit("", model)
    return chains, singles


def capture_chain(
    blocks: Sequence[Block],
    run: Callable[[int], None],
    num_batches: int,
    context: Callable[[int], AbstractContextManager[None]] | None = None,
) -> list[BlockRun]:
    """Run every batch once and record how it passes through `blocks`; a batch may pass several times, or never.

    `context(batch)` is entered around later calls of a block: what the model sets up outside of its layers.
    """
    runs: list[BlockRun] = []
    state: dict[str, Any] = {"plain": True}

    def before(position: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            hidden, call = _split(arguments, options)
            if position == 0:
                made = BlockRun(state["batch"], hidden)
                if context is not None:
                    batch = state["batch"]
                    made.context = lambda: context(batch)
                runs.append(made)
            elif hidden is not state["output"]:
                call.added = hidden - state["output"]
            runs[-1].calls.append(call)

        return hook

    def after(module: torch.nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        state["output"] = _first(output)
        state["plain"] &= isinstance(output, torch.Tensor)

    handles = []
    for position, block in enumerate(blocks):
        handles.append(block.module.register_forward_pre_hook(before(position), with_kwargs=True))
        handles.append(block.module.register_forward_hook(after))
    try:
        for batch in range(num_batches):
            state["batch"] = batch
            # Arguments do not depend on what layers compute: from the second batch on, layers pass their input through.
            with _passing_through(blocks if batch and len(blocks) > 1 and state["plain"] else ()):
                run(batch)
    finally:
        for handle in handles:
            handle.remove()
    return runs


def collect_statistics(
    block: Block,
    position: int,
    runs: Sequence[BlockRun],
    *,
    names: Sequence[str],
    weights: Callable[[BlockRun], torch.Tensor | None],
    held_out: Callable[[int], bool],
    dtype: torch.dtype = torch.float32,
) -> dict[str, InputStatistics]:
    """Statistics of the inputs of the linears `names` (relative to the block) over all passes.

    Linears that get the very same tensor share one InputStatistics. A linear that never runs is left out. `weights(run)`
    counts the tokens of a pass, None for 1 each; passes whose token number differs inside the block count 1 each.
    """
    shared: dict[str, str] = {}
    found: dict[str, InputStatistics] = {}
    inputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
            inputs[name] = arguments[0]

        return hook

    modules = {name: block.module.get_submodule(name) if name else block.module for name in names}
    handles = [module.register_forward_pre_hook(keep(name)) for name, module in modules.items()]
    try:
        for run in runs:
            inputs.clear()
            run.call(position, block)
            token_weights = weights(run)
            for name, tensor in inputs.items():
                if name not in shared:
                    shared[name] = next((other for other in shared if inputs.get(other) is tensor), name)
                if shared[name] != name:
                    continue
                if name not in found:
                    found[name] = InputStatistics(tensor.shape[-1], dtype=dtype)
                rows = tensor.numel() // tensor.shape[-1]
                fitting = token_weights if token_weights is not None and len(token_weights) == rows else None
                found[name].add(tensor, fitting, held_out=held_out(run.batch))
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[first] for name, first in shared.items()}


@contextmanager
def _passing_through(blocks: Sequence[Block]) -> Iterator[None]:
    """Inside, the blocks return the hidden states that they are given."""
    before = [block.module.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.module.forward = lambda *arguments, **options: _split(arguments, options)[0]
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            del block.module.forward
            if forward is not None:
                block.module.forward = forward


def _split(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[torch.Tensor, _Call]:
    """The hidden states (first argument, by place or name) and the rest."""
    if arguments:
        return arguments[0], _Call(arguments[1:], dict(options))
    name = next(iter(options))
    return options[name], _Call((), {key: value for key, value in options.items() if key != name})


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _holds_chain(module: torch.nn.Module, skip: torch.nn.Module | None) -> bool:
    """Something inside must be visited on its own: a stack of layers, or the part to leave out."""

    def inner(parent: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
        for name, child in parent.named_children():
            yield name, child
            yield from inner(child)

    return any(
        child is skip or (name in _CHAINS and isinstance(child, torch.nn.ModuleList)) for name, child in inner(module)
    )
