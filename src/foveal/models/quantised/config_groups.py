"""`quantization_config` of compressed-tensors: which scheme a module has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foveal.core.errors import ModelLoadError
from foveal.kernels.quantisation.scheme import ActivationScheme, LinearScheme, WeightScheme

__all__ = ["ConfigGroup", "find_group", "parse_groups"]

_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")


@dataclass(frozen=True)
class ConfigGroup:
    """One entry of `config_groups`."""

    name: str
    targets: tuple[str, ...]
    """Module names, `re:` expressions, or classes like Linear."""
    scheme: LinearScheme


def parse_groups(config: Mapping[str, Any]) -> list[ConfigGroup]:
    """Every group that rounds weights. Raises ModelLoadError for what this reader cannot run."""
    groups = []
    for name, values in (config.get("config_groups") or {}).items():
        if not isinstance(values, Mapping):
            raise ModelLoadError(
                f"config group {name} refers to a preset of compressed-tensors. Save the checkpoint again with the "
                "schemes written out."
            )
        if values.get("weights") is None:
            continue
        stored_as = values.get("format") or config.get("format")
        if stored_as not in _FORMATS:
            raise ModelLoadError(
                f"config group {name} is stored as {stored_as}; this reader knows {', '.join(_FORMATS)}. Convert the "
                "checkpoint to one of them."
            )
        if values.get("output_activations") is not None:
            raise ModelLoadError(f"config group {name} rounds outputs, which is not supported. Round inputs instead.")
        scheme = LinearScheme(_weight(name, values["weights"]), _activation(name, values.get("input_activations")))
        groups.append(ConfigGroup(name, tuple(values.get("targets") or ()), scheme))
    if not groups:
        raise ModelLoadError("quantization_config names no config_groups with weights. Remove it, or convert again.")
    return groups


def find_group(groups: list[ConfigGroup], names: tuple[str, ...], class_name: str) -> ConfigGroup:
    """The group of a module known under `names`. As compressed-tensors decides: names before expressions before
    classes. Raises ModelLoadError if none fits."""
    for applies in (
        lambda target: target in names,
        lambda target: target.startswith("re:") and any(re.match(target[3:], name) for name in names),
        lambda target: target == class_name,
    ):
        for group in groups:
            if any(applies(target) for target in group.targets):
                return group
    raise ModelLoadError(
        f"{names[0]} is stored quantised, but no config group targets it. Convert the checkpoint again."
    )


def _weight(name: str, values: Mapping[str, Any]) -> WeightScheme:
    kind, bits = values.get("type", "int"), values.get("num_bits", 8)
    group_size = values.get("group_size")
    strategy = values.get("strategy") or (
        "tensor" if group_size is None else "channel" if group_size == -1 else "group"
    )
    granularities = {"tensor": -1, "channel": None, "group": group_size}
    if strategy not in granularities or kind not in ("int", "float"):
        raise ModelLoadError(
            f"weights of config group {name} are {kind}{bits} per {strategy}; this reader knows int and float per "
            "tensor, channel or group. Convert the checkpoint to one of them."
        )
    return WeightScheme(kind, bits, bool(values.get("symmetric", True)), granularities[strategy])


def _activation(name: str, values: Mapping[str, Any] | None) -> ActivationScheme | None:
    if values is None:
        return None
    dynamic = values.get("dynamic", False)
    strategy = values.get("strategy") or "tensor"
    if values.get("type", "int") != "int" or (bool(dynamic), strategy) not in {(True, "token"), (False, "tensor")}:
        raise ModelLoadError(
            f"inputs of config group {name} are {values.get('type', 'int')}{values.get('num_bits', 8)} per {strategy}; "
            "this reader knows int, dynamic per token or static per tensor. Use a weight-only or INT8 checkpoint."
        )
    return ActivationScheme(values.get("num_bits", 8), bool(dynamic), bool(values.get("symmetric", True)))
