"""Choose per-channel scales for a block (AWQ, SmoothQuant) and fold them in where that helps on held-out inputs."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence

import torch

from foveal.compression.folding import fold_scale
from foveal.compression.linear_work import LinearWork
from foveal.compression.mappings import Mapping, mappings_of
from foveal.compression.methods.activations import calibrate_input
from foveal.compression.methods.awq import GRID_STEPS, search_scale
from foveal.compression.methods.smoothquant import search_alpha, smooth_scale
from foveal.kernels.quantisation.affine import quantise
from foveal.models.quantised.input_rounding import StaticInput

__all__ = ["scale_block", "static_input"]

_SCALING = ("awq", "smoothquant")


def scale_block(block: torch.nn.Module, works: Dict[str, LinearWork], stored_dtype: torch.dtype) -> set[str]:
    """Fold scales into `block` in place, for linears whose rule asks for it; `works` is keyed by relative name.

    A scale is kept only if the linears that asked for it lose less together on held-out inputs than by rounding alone.
    Linears that share the input but not the method are multiplied as well: their function stays. Returns the names of
    all parameters that changed, relative to the block.
    """
    wanting = {name for name, work in works.items() if work.rule.method in _SCALING}
    if not wanting:
        return set()
    found = mappings_of(block)
    for name in wanting & found.unscaled.keys():
        works[name].notes.append(f"no scale: {found.unscaled[name]}")
    changed: set[str] = set()
    for mapping in found.mappings:
        asking = [works[name] for name in mapping.consumers if name in wanting]
        # One method decides for a shared input; recipes give fused linears one rule.
        asking = [work for work in asking if work.rule.method == asking[0].rule.method and work.statistics is not None]
        if not asking:
            continue
        scale, described = _choose(mapping, asking)
        if scale is None:
            for work in asking:
                work.notes.append(f"no scale: {described}")
            continue
        changed.update(
            fold_scale(block, mapping, scale, rounded=lambda values: values.to(stored_dtype).to(values.dtype))
        )
        for name in mapping.consumers:
            if name in works:
                works[name].columns = works[name].columns * scale[mapping.channels]
        if mapping.source in works:
            rows = slice(mapping.first_row, mapping.first_row + len(scale))
            works[mapping.source].rows[rows] /= scale
        for work in asking:
            work.notes.append(described)
    return changed


def static_input(work: LinearWork, columns: torch.Tensor) -> StaticInput | None:
    """The calibrated range of the input divided by `columns` [in], where the scheme has one."""
    activation = work.scheme.activation
    if activation is None or activation.dynamic:
        return None
    if work.statistics is None:
        return None
    return calibrate_input(work.statistics.scaled(columns), activation)


def _choose(mapping: Mapping, asking: Sequence[LinearWork]) -> tuple[torch.Tensor | None, str]:
    """(scale [source channels], how it was found), or (None, why not)."""
    statistics = asking[0].statistics
    assert statistics is not None
    options = asking[0].rule.options
    plain = _held_loss(asking, torch.ones(statistics.in_features))
    if asking[0].rule.method == "awq":
        choice = search_scale(
            [work.original for work in asking],
            [work.scheme.weight for work in asking],
            statistics.hessian,
            statistics.mean_abs,
            channels=mapping.channels,
            steps=int(options.get("grid", GRID_STEPS)),
        )
        scale, described = choice.scale, f"scaled with gamma {choice.gamma:g}"
        if choice.loss == choice.plain_loss:
            return None, "no gamma was better than 0"
    else:
        weights = [work.original for work in asking]

        def scale_of(alpha: float) -> torch.Tensor:
            return smooth_scale(statistics.abs_max, weights, alpha, channels=mapping.channels)

        def loss_of(candidate: torch.Tensor | None) -> float:
            columns = torch.ones(statistics.in_features) if candidate is None else candidate[mapping.channels]
            return _held_loss(asking, columns)

        if "alpha" in options:
            alpha = float(options["alpha"])
            scale = scale_of(alpha)
        else:
            found, smoothed = search_alpha(scale_of, loss_of)
            if found is None or smoothed is None:
                return None, "no alpha was better than leaving the inputs alone"
            alpha, scale = found, smoothed
        described = f"smoothed with alpha {alpha:g}"
    if _held_loss(asking, scale[mapping.channels]) > plain:
        return None, f"{described} was worse on held-out inputs"
    return scale, described


def _held_loss(asking: Sequence[LinearWork], columns: torch.Tensor) -> float:
    """Summed output error on held-out inputs with plain rounding after scaling by `columns` [in]."""
    total = 0.0
    for work in asking:
        quantised = quantise(work.original * columns, work.scheme.weight)
        loss = work.loss(quantised, static_input(work, columns), rows=1.0, columns=columns)
        assert loss is not None
        total += loss * len(work.original)
    return total
