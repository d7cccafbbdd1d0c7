"""What no block covers: the token table (with a tied head), and the matrices that stay as they are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch

from foveal.compression.block_compressor import kept_record, sqnr_db
from foveal.compression.components import component_of, matrices, structural_reason
from foveal.compression.groups import fitting
from foveal.compression.methods.rtn import rtn
from foveal.compression.recipe import Rule
from foveal.compression.records import BlockResult, LinearRecord
from foveal.kernels.quantisation.scheme import LinearScheme

__all__ = ["remaining_records", "table_result"]

_DIRECT = ("rtn", "nf4", "fp8")


def table_result(model: torch.nn.Module, name: str, twin: str | None, rule: Rule, source_bytes: int) -> BlockResult:
    """The token table `name`, and the head `twin` where both are one tensor, stored once.

    A table has no inputs to learn from: whatever the method, it is rounded to nearest.
    """
    weight = model.get_submodule(name).weight.detach()
    names = [name] if twin is None else [name, twin]
    result = BlockResult()
    if rule.scheme is None:
        for at, one in enumerate(names):
            record = kept_record(one, component_of(one, model), rule.reason, weight, source_bytes)
            result.records.append(replace(record, bytes_before=0, bytes_after=0) if at else record)
        return result
    scheme = LinearScheme(fitting(rule.scheme.weight, weight.shape[1]))
    quantised = rtn(weight, scheme.weight)
    result.weights[name], result.schemes[name] = quantised, scheme
    notes = [] if rule.method in _DIRECT else [f"a table has no inputs for {rule.method} to learn from: rounded"]
    for at, one in enumerate(names):
        shared = [f"one tensor with {names[1 - at]}"] if twin is not None else []
        result.records.append(
            LinearRecord(
                one,
                component_of(one, model),
                rule.method if rule.method in _DIRECT else "rtn",
                scheme.name,
                sqnr_db=sqnr_db(weight, quantised),
                bytes_before=0 if at else weight.numel() * source_bytes,
                bytes_after=0 if at else quantised.stored_bytes,
                note="; ".join(shared + notes) or None,
            )
        )
    return result


def remaining_records(model: torch.nn.Module, known: Collection[str], source_bytes: int) -> list[LinearRecord]:
    """Records of every other matrix: convolutions, GPT-2's Conv1D, position tables, parts that never run, bare ones."""
    reachable = {name for name, _, _ in matrices(model)}
    records = []
    for name, module in model.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            full = name if kind == "weight" else f"{name}.{kind}"
            if parameter.dim() < 2 or full in known:
                continue
            if kind != "weight":
                if parameter.dim() == 2:
                    reason = "a bare parameter, which no format of quantised linears can hold"
                    records.append(kept_record(full, component_of(full, model), reason, parameter, source_bytes))
                continue
            records.append(
                kept_record(name, component_of(name, model), _why(name, model, reachable), parameter, source_bytes)
            )
    return records


def _why(name: str, model: torch.nn.Module, reachable: Collection[str]) -> str:
    if name in reachable:
        return "Foveal quantises nn.Linear only; this is GPT-2's Conv1D, whose weight lies the other way round"
    return structural_reason(name, model) or "a convolution: the patch embedding is small and the most sensitive"
