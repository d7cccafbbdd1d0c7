"""Quantisation-aware training: linears that round their weights while they are trained, then hand out the codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from foveal.compression.training.fake_quantise import codes_of, fake_quantise, stored_scale
from foveal.compression.training.saliency import Loss, next_token_loss
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import QuantisedWeight, find_scales
from foveal.kernels.quantisation.observers import Observer
from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["QatConfig", "QatLinear", "attach", "detach", "export", "train"]


class QatLinear(nn.Module):
    """A linear whose weight is rounded in the forward pass; weight and scales are trained, the zero point stays.

    Starts from round-to-nearest's scales. Raises ConfigurationError for schemes that are not integers.
    """

    def __init__(self, linear: nn.Linear, scheme: WeightScheme, observer: Observer = "mse") -> None:
        super().__init__()
        if scheme.kind != "int":
            raise ConfigurationError(
                f"training with {scheme.name} weights is not possible; choose integers, e.g. int4-g64"
            )
        self.scheme = scheme
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale, zero_point = find_scales(linear.weight.detach().float(), scheme, observer)
        self.scale = nn.Parameter(scale.clone().float())
        self.register_buffer("zero_point", zero_point)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.rounded_weight().to(x.dtype), self.bias)

    def rounded_weight(self) -> torch.Tensor:
        return fake_quantise(self.weight.float(), self.scale, self.zero_point, self.scheme)

    @torch.no_grad()
    def export(self) -> QuantisedWeight:
        """Exactly what the forward pass uses: `export().dequantise()` equals `rounded_weight()`."""
        codes = codes_of(self.weight.float(), self.scale, self.zero_point, self.scheme)
        return QuantisedWeight(codes, stored_scale(self.scale).clone(), self.zero_point, self.scheme)


@dataclass(frozen=True)
class QatConfig:
    steps: int
    rate: float = 1e-4
    scale_rate: float = 1e-4  # relative to each scale's own size
    clip: float = 1.0


def attach(model: nn.Module, schemes: Mapping[str, WeightScheme], observer: Observer = "mse") -> dict[str, QatLinear]:
    """Puts a QatLinear in the place of each named linear. Raises ConfigurationError for names that are no linears."""
    modules = dict(model.named_modules())
    wrong = [name for name in schemes if not isinstance(modules.get(name), nn.Linear)]
    if wrong or not schemes:
        found = f"{len(wrong)} names that are no linears of the model, first {wrong[0]!r}" if wrong else "no names"
        raise ConfigurationError(
            f"training with rounded weights got {found}; names look like model.layers.0.mlp.up_proj"
        )
    attached = {}
    for name, scheme in schemes.items():
        attached[name] = QatLinear(modules[name], scheme, observer)
        _replace(model, name, attached[name])
    return attached


def train(
    model: nn.Module,
    batches: Sequence[Any],
    config: QatConfig,
    loss: Loss = next_token_loss,
    report: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Trains weights and scales of the attached linears only, batches in turn; returns the loss of every step.

    `loss(model, batch)` may be the model's own loss or a distance to a teacher.
    """
    linears = [module for module in model.modules() if isinstance(module, QatLinear)]
    if not linears or not batches:
        raise ConfigurationError(
            f"training needs attached linears and batches; found {len(linears)} and {len(batches)}"
        )
    before = {p: p.requires_grad for p in model.parameters()}
    weights, scales = [m.weight for m in linears], [m.scale for m in linears]
    for parameter in before:
        parameter.requires_grad_(False)
    for parameter in (*weights, *scales):
        parameter.requires_grad_(True)
    groups: list[dict[str, Any]] = [{"params": weights, "peak": config.rate}]
    groups += [{"params": [s], "peak": config.scale_rate * float(s.detach().abs().mean())} for s in scales]
    optimiser = torch.optim.Adam(groups, lr=config.rate, betas=(0.9, 0.98))
    history = []
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        value = loss(model, batches[step % len(batches)])
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_([*weights, *scales], config.clip)
        optimiser.step()
        history.append(value.item())
        if report is not None:
            report(step, history[-1])
    for parameter, needed in before.items():
        parameter.requires_grad_(needed)
    return history


def export(model: nn.Module) -> dict[str, QuantisedWeight]:
    """Codes and scales of every attached linear, by name; what a compressed checkpoint is written from."""
    return {name: module.export() for name, module in model.named_modules() if isinstance(module, QatLinear)}


def detach(model: nn.Module) -> None:
    """Plain linears again, holding the rounded weights."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QatLinear):
            plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            plain.weight = nn.Parameter(module.rounded_weight().detach().to(module.weight.dtype))
            plain.bias = module.bias
            _replace(model, name, plain)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
