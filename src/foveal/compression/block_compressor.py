"""Compress one block whose inputs are known: fold scales, round every linear by its rule, keep what is better."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from foveal.compression.capture import Block
from foveal.compression.components import Component
from foveal.compression.groups import fitting
from foveal.compression.input_statistics import InputStatistics
from foveal.compression.linear_work import LinearWork
from foveal.compression.methods.clipping import search_clip
from foveal.compression.methods.fp8 import fp8
from foveal.compression.methods.gptq import gptq
from foveal.compression.methods.nf4 import nf4
from foveal.compression.methods.rtn import rtn
from foveal.compression.recipe import METHOD_OPTIONS, Rule
from foveal.compression.records import BlockResult, LinearRecord
from foveal.compression.scaling import scale_block, static_input
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.quantised.input_rounding import InputRounding

__all__ = ["LinearPlan", "compress_block", "kept_record", "put_in_place", "sqnr_db"]

# Clipping q and k hurts where it shows least in their own output: in the products of the two.
_NEVER_CLIPPED = ("q_proj", "k_proj", "qkv")


@dataclass(frozen=True)
class LinearPlan:
    """What the recipe says about one linear of a block. `name` is relative to the block."""

    name: str
    component: Component
    rule: Rule


def compress_block(
    block: Block,
    plans: Sequence[LinearPlan],
    statistics: Mapping[str, InputStatistics] | None,
    stored_dtype: torch.dtype,
    source_bytes: int,
) -> BlockResult:
    """Results under module names of the model. The block itself is changed only by scales folded in: see `put_in_place`.

    `statistics` is keyed like the plans; None if there is no calibration data. `stored_dtype` is what folded norms are
    rounded to, `source_bytes` what an element took in the source. Linears that calibration never reaches are kept.
    """
    result = BlockResult()
    works: dict[str, LinearWork] = {}
    for plan in plans:
        module = block.module.get_submodule(plan.name)
        reason = _reason_to_keep(plan, statistics)
        if reason is not None or plan.rule.scheme is None:
            result.records.append(
                kept_record(
                    _full(block, plan.name), plan.component, reason or plan.rule.reason, module.weight, source_bytes
                )
            )
            continue
        try:
            scheme, notes = _fitted(plan.rule.scheme, module.in_features)
        except ConfigurationError as error:
            result.records.append(
                kept_record(_full(block, plan.name), plan.component, str(error), module.weight, source_bytes)
            )
            continue
        known = None if statistics is None else statistics[plan.name]
        works[plan.name] = LinearWork(_full(block, plan.name), plan.component, module, plan.rule, scheme, known, notes)
    changed = scale_block(block.module, works, stored_dtype)
    compensated = _gptq_together(works)
    for name, work in works.items():
        _finish(work, compensated.get(name), result, source_bytes)
    quantised = {f"{name}.weight" if name else "weight" for name in works}
    for name in sorted(changed - quantised):
        values = block.module.get_parameter(name).detach()
        result.replaced[_full(block, name)] = values.to(stored_dtype).clone()
    return result


def put_in_place(model: torch.nn.Module, result: BlockResult) -> list[Any]:
    """Give the model the rounded weights and folded tensors, and round the inputs of linears whose scheme says so.

    Returns the handles of the hooks that do the latter.
    """
    handles = []
    for name, tensor in result.replaced.items():
        model.get_parameter(name).copy_(tensor)
    for name, weight in result.weights.items():
        module = model.get_submodule(name)
        module.weight.copy_(weight.dequantise())
        activation = result.schemes[name].activation
        if activation is not None:
            rounding = InputRounding(activation, result.static_inputs.get(name))
            handles.append(module.register_forward_pre_hook(_rounding_hook(rounding)))
    return handles


def kept_record(name: str, component: Component, reason: str, weight: torch.Tensor, source_bytes: int) -> LinearRecord:
    """The record of a matrix that stays as it is."""
    size = weight.numel() * source_bytes
    return LinearRecord(name, component, kept_reason=reason, bytes_before=size, bytes_after=size)


def sqnr_db(weight: torch.Tensor, quantised: QuantisedWeight) -> float | None:
    """Signal to noise of the rounded weight; None where nothing was lost, which JSON has no number for."""
    noise = float((quantised.dequantise() - weight).pow(2).sum())
    signal = float(weight.pow(2).sum())
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None


def _reason_to_keep(plan: LinearPlan, statistics: Mapping[str, InputStatistics] | None) -> str | None:
    if plan.rule.scheme is None:
        return plan.rule.reason
    if statistics is not None and plan.name not in statistics:
        return "it never runs on the calibration data"
    return None


def _fitted(scheme: LinearScheme, in_features: int) -> tuple[LinearScheme, list[str]]:
    weight = fitting(scheme.weight, in_features)
    if weight == scheme.weight:
        return scheme, []
    instead = f"groups of {weight.group}" if weight.group else "one scale per output channel"
    return LinearScheme(weight, scheme.activation), [
        f"group {scheme.weight.group} does not divide {in_features}: {instead}"
    ]


def _gptq_together(works: Mapping[str, LinearWork]) -> dict[str, QuantisedWeight]:
    """Linears with the same input, scheme and options are one weight for GPTQ: rows never affect each other."""
    groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, work in works.items():
        if _is_compensated(work.rule):
            alone = name if work.scheme.weight.per_tensor else ""
            key = (id(work.statistics), work.scheme.name, tuple(sorted(work.rule.options.items())), alone)
            groups[key].append(name)
    results = {}
    for names in groups.values():
        first = works[names[0]]
        assert first.statistics is not None
        inverse = 1 / first.columns
        hessian = first.statistics.hessian * inverse * inverse[:, None]
        together = torch.cat([works[name].weight for name in names])
        options = {key: value for key, value in first.rule.options.items() if key in METHOD_OPTIONS["gptq"]}
        done = gptq(together, hessian, first.scheme.weight, **options)
        start = 0
        for name in names:
            end = start + len(works[name].weight)
            scale, zero = done.scale, done.zero_point
            if not first.scheme.weight.per_tensor:
                scale, zero = scale[start:end], None if zero is None else zero[start:end]
            results[name] = QuantisedWeight(done.codes[start:end], scale, zero, first.scheme.weight)
            start = end
    return results


def _is_compensated(rule: Rule) -> bool:
    return rule.method == "gptq" or (rule.method == "smoothquant" and bool(rule.options.get("compensate", True)))


def _finish(work: LinearWork, compensated: QuantisedWeight | None, result: BlockResult, source_bytes: int) -> None:
    """Round one linear and record it; where its own method lost against rounding, rounding is taken."""
    scheme, method = work.scheme.weight, work.rule.method
    static = static_input(work, work.columns)
    untouched = bool((work.columns == 1).all())
    plain = rtn(work.weight, scheme)
    unscaled = static_input(work, torch.ones_like(work.columns))
    rtn_loss = work.loss(rtn(work.original, scheme), unscaled, rows=1.0, columns=1.0)
    taken = compensated
    if method == "awq":
        taken = plain
        if work.rule.options.get("clip", True) and not work.name.endswith(_NEVER_CLIPPED):
            assert work.statistics is not None
            inverse = 1 / work.columns
            taken = search_clip(work.weight, scheme, work.statistics.hessian.float() * inverse * inverse[:, None])
    elif method == "nf4":
        taken = nf4(work.weight, scheme)
    elif method == "fp8":
        taken = fp8(work.weight, scheme)
    elif method == "rtn":
        taken = rtn(work.weight, scheme, **dict(work.rule.options))
    elif method == "smoothquant" and taken is None:
        taken = plain
    assert taken is not None
    loss = work.loss(taken, static)
    if method in ("gptq", "awq", "smoothquant") and loss is not None:
        rounded = work.loss(plain, static)
        assert rounded is not None
        if loss > rounded:
            work.notes.append(
                f"{method} lost on held-out inputs ({loss:.3g} against {rounded:.3g}): rounded to nearest"
            )
            taken, loss = plain, rounded
            method = "rtn" if untouched and method != "smoothquant" else method
    result.weights[work.name], result.schemes[work.name] = taken, work.scheme
    if static is not None:
        result.static_inputs[work.name] = static
    size = work.original.numel()
    result.records.append(
        LinearRecord(
            work.name,
            work.component,
            method,
            work.scheme.name,
            loss=loss,
            rtn_loss=rtn_loss,
            sqnr_db=sqnr_db(work.weight, taken),
            bytes_before=size * source_bytes,
            bytes_after=taken.stored_bytes,
            note="; ".join(work.notes) or None,
        )
    )


def _rounding_hook(rounding: InputRounding) -> Any:
    def hook(module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rounding(arguments[0]), *arguments[1:])

    return hook


def _full(block: Block, name: str) -> str:
    return f"{block.name}.{name}" if name else block.name
