"""A loaded model as compression sees it: its parts in the order they run, and how to run calibration through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from foveal.compression.capture import Block, BlockRun, capture_chain, parts_of
from foveal.compression.components import module_name
from foveal.compression.prefill import PrefillBatch, build_step, encode, scratch_cache
from foveal.models.attention_interface import attention_step
from foveal.models.base import ModelStep
from foveal.models.language_model import TransformersModel

__all__ = ["ModelWalk"]


@dataclass
class ModelWalk:
    """`batches` is empty where there is no calibration data: then nothing runs, and parts are only listed."""

    model: TransformersModel
    batches: Sequence[PrefillBatch]
    tower: list[list[Block]] = field(init=False)
    """Stacks of the vision tower."""
    singles: list[Block] = field(init=False)
    """Projectors, mergers and whatever else outside the decoder holds linears, in the order of the model."""
    decoder: list[Block] = field(init=False)
    head: Block = field(init=False)

    def __post_init__(self) -> None:
        network = self.model.hf_model
        stack = network.get_decoder()
        prefix = module_name(network, stack)
        self.head = Block(module_name(network, network.get_output_embeddings()), network.get_output_embeddings())
        self.tower, singles = parts_of(network, stack)
        self.singles = [block for block in singles if block.name != self.head.name]
        chains, _ = parts_of(stack, None)
        # GPT-2's stack has no nn.Linear at all, and so no chain to compress.
        self.decoder = [Block(f"{prefix}.{block.name}", block.module) for chain in chains for block in chain]
        self._cache = scratch_cache(self.model, self.batches) if self.batches else None

    def encode(self, batch: int) -> list[torch.Tensor]:
        """Image features of a batch with the weights as they are now."""
        return encode(self.model, self.batches[batch])

    def capture_vision(self, blocks: Sequence[Block]) -> list[BlockRun]:
        """Passes of all batches through a stack of the tower, or through one module after it."""
        return capture_chain(blocks, lambda batch: self._see(batch), len(self.batches))

    def steps(self) -> list[ModelStep]:
        """Every batch with its image features; their attention plans are shared by later calls."""
        return [build_step(self.model, batch, self.encode(index)) for index, batch in enumerate(self.batches)]

    def forward(self, step: ModelStep) -> torch.Tensor:
        """Final hidden states [T, hidden]."""
        assert self._cache is not None
        return self.model.forward(step, self._cache)

    def capture_decoder(self, steps: Sequence[ModelStep]) -> list[BlockRun]:
        """Passes of all batches through the decoder's layers."""

        def context(batch: int) -> AbstractContextManager[None]:
            assert self._cache is not None
            return attention_step(steps[batch].attention, self._cache)

        return capture_chain(self.decoder, lambda batch: self._read(steps[batch]), len(self.batches), context)

    def head_runs(self, steps: Sequence[ModelStep]) -> list[BlockRun]:
        """What enters the head."""
        runs = []
        for batch, step in enumerate(steps):
            run = BlockRun(batch, self.forward(step))
            run.add_plain_call()
            runs.append(run)
        return runs

    def decoder_weights(self, image: float, text: float = 1.0) -> Callable[[BlockRun], torch.Tensor]:
        """Token weights of a pass through the decoder: [T]."""
        masks = [batch.image_mask for batch in self.batches]
        return lambda run: torch.where(masks[run.batch], image, text)

    def _see(self, batch: int) -> None:
        self.encode(batch)

    def _read(self, step: ModelStep) -> None:
        self.forward(step)
