"""One run of compression over all blocks of a model: what is fixed, and what has been found so far."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from foveal.compression.block_compressor import LinearPlan, compress_block, put_in_place
from foveal.compression.block_files import BlockFiles
from foveal.compression.capture import Block, BlockRun, collect_statistics
from foveal.compression.components import component_of, module_name
from foveal.compression.model_walk import ModelWalk
from foveal.compression.objective import find_image_weight
from foveal.compression.recipe import Recipe, Rule
from foveal.compression.records import BlockResult
from foveal.compression.tables import remaining_records, table_result

__all__ = ["CompressionRun", "Progress"]


@dataclass(frozen=True)
class Progress:
    """After each block: `done` of `total`, its name, seconds it took; `resumed` if it was read from a file."""

    done: int
    total: int
    name: str
    seconds: float
    resumed: bool


class CompressionRun:
    """One run: what is fixed for all blocks, and what has been found so far."""

    def __init__(
        self,
        walk: ModelWalk,
        rules: Mapping[str, Rule],
        stored_dtype: torch.dtype,
        files: BlockFiles,
        progress: Callable[[Progress], None],
        *,
        resume: bool,
    ) -> None:
        self.walk = walk
        self.network = walk.model.hf_model
        self.rules = rules
        self.stored_dtype = stored_dtype
        self.source_bytes = stored_dtype.itemsize
        self.files = files
        self.report = progress
        self.resume = resume
        self.result = BlockResult()
        self.done = 0
        self.total = sum(map(len, walk.tower)) + len(walk.singles) + 1 + len(walk.decoder) + (not self._tied()) + 1

    def image_weight(self, recipe: Recipe, probe: ModelWalk) -> tuple[float, dict[float, float]]:
        """Given by the recipe, found before, or found now."""
        if recipe.modality_weight != "auto":
            return float(recipe.modality_weight), {}
        path = self.files.folder / "image_weight.json"
        if self.resume and path.is_file():
            try:
                job, weight, losses = json.loads(path.read_text())
            except ValueError:  # damaged: found again
                job = None
            if job == self.files.job:
                return weight, dict(losses)
        if not probe.batches:
            return 1.0, {}
        plans = [self._plans(block) for block in probe.decoder]
        weight, losses = find_image_weight(probe, plans, self.stored_dtype)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps([self.files.job, weight, list(losses.items())]))
        partial.replace(path)
        return weight, losses

    def everything(self, image_weight: float) -> None:
        """Tower, projectors, embedding, decoder, head: as data flows."""
        walk, data = self.walk, bool(self.walk.batches)
        for chain in walk.tower:
            self._chain(chain, walk.capture_vision(chain) if data else [], _alike)
        for block in walk.singles:
            self._chain([block], walk.capture_vision([block]) if data else [], _alike)
        self._whole("embedding", self._embedding)
        steps = walk.steps() if data else []
        weights = walk.decoder_weights(image_weight)
        self._chain(walk.decoder, walk.capture_decoder(steps) if data else [], weights)
        if not self._tied():
            wanted = self.rules[walk.head.name].scheme is not None
            self._chain([walk.head], walk.head_runs(steps) if data and wanted else [], weights)
        self._whole("remaining", self._remaining)

    def _chain(
        self, blocks: Sequence[Block], runs: list[BlockRun], weights: Callable[[BlockRun], torch.Tensor | None]
    ) -> None:
        for position, block in enumerate(blocks):
            plans = self._plans(block)

            def make(position: int = position, block: Block = block, plans: list[LinearPlan] = plans) -> BlockResult:
                statistics = None
                wanted = [plan.name for plan in plans if plan.rule.scheme is not None]
                if self.walk.batches:
                    statistics = collect_statistics(
                        block,
                        position,
                        runs,
                        names=wanted,
                        weights=weights,
                        held_out=lambda batch: self.walk.batches[batch].held_out,
                    )
                return compress_block(block, plans, statistics, self.stored_dtype, self.source_bytes)

            self._whole(block.name, make)
            if position + 1 < len(blocks):
                for run in runs:
                    run.hidden = run.call(position, block)

    def _whole(self, name: str, make: Callable[[], BlockResult]) -> None:
        """One unit of work: read from its file or made and written, then put into the model."""
        started = time.monotonic()
        found = self.files.load(name) if self.resume else None
        made = found or make()
        if found is None:
            self.files.save(name, made)
        put_in_place(self.network, made)
        self.result.extend(made)
        self.done += 1
        self.report(Progress(self.done, self.total, name, time.monotonic() - started, found is not None))

    def _plans(self, block: Block) -> list[LinearPlan]:
        plans = []
        for name, module in block.module.named_modules():
            full = f"{block.name}.{name}" if name else block.name
            if isinstance(module, torch.nn.Linear) and full in self.rules:
                plans.append(LinearPlan(name, component_of(full, self.network), self.rules[full]))
        return plans

    def _tied(self) -> bool:
        return self.network.get_input_embeddings().weight is self.network.get_output_embeddings().weight

    def _embedding(self) -> BlockResult:
        name = module_name(self.network, self.network.get_input_embeddings())
        twin = self.walk.head.name if self._tied() else None
        return table_result(self.network, name, twin, self.rules[name], self.source_bytes)

    def _remaining(self) -> BlockResult:
        known = {record.name for record in self.result.records}
        return BlockResult(records=remaining_records(self.network, known, self.source_bytes))


def _alike(run: BlockRun) -> None:
    """Every token of the tower is an image token: each counts 1."""
