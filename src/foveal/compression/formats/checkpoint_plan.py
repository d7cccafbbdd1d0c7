"""What a compressed checkpoint will hold, decided from names and shapes before anything is written."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from foveal.compression.formats.base import CheckpointFormat, FormatRequest, StoredItem
from foveal.core.errors import ConfigurationError, IntegrityError
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.quantised.input_rounding import InputRounding, StaticInput
from foveal.models.quantised.tensor_files import TensorFiles
from foveal.models.quantised.tensor_names import TensorNames, build_skeleton
from foveal.models.registry import family_of

__all__ = ["CheckpointPlan", "SourceCheckpoint"]


class SourceCheckpoint:
    """An unquantised checkpoint directory: its tensors under both their names.

    Raises ConfigurationError for one that is quantised already, ModelLoadError or SafetensorError for an unreadable one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config_values: dict[str, Any] = json.loads((directory / "config.json").read_text())
        if "quantization_config" in self.config_values:
            raise ConfigurationError(
                f"{directory} is quantised already. Compress the checkpoint that it was made from."
            )
        config = transformers.AutoConfig.from_pretrained(directory)
        self.skeleton = build_skeleton(config, family_of(config.model_type))
        self.files = TensorFiles(directory)
        names = TensorNames(self.skeleton)
        self.model_name = {stored: names.in_model(stored) for stored in self.files}
        self.stored_name = {name: stored for stored, name in self.model_name.items()}
        self.twin: dict[str, str] = {}
        """Module -> the module that is tied to it, both ways."""
        for name, other in (getattr(self.skeleton, "all_tied_weights_keys", None) or {}).items():
            for one, two in ((name, other), (other, name)):
                self.twin[one.removesuffix(".weight")] = two.removesuffix(".weight")
                if one not in self.stored_name and two in self.stored_name:
                    self.stored_name[one] = self.stored_name[two]

    def stored_prefix(self, module: str) -> str:
        """The name under which the weight of `module` is stored, without `.weight`; of its twin if it is tied.

        Raises IntegrityError if the checkpoint has no such weight.
        """
        stored = self.stored_name.get(f"{module}.weight")
        if stored is None or not stored.endswith(".weight"):
            raise IntegrityError(f"{self.directory} stores no weight for module {module}")
        return stored.removesuffix(".weight")


@dataclass(frozen=True)
class CheckpointPlan:
    """Quantised weights and new values of other tensors, by the names they have in the source's files."""

    format: CheckpointFormat
    request: FormatRequest
    items: Mapping[str, StoredItem]
    """Prefix in the files -> what is stored there."""
    twins: Mapping[str, str]
    """Prefix in the files -> the module that is tied to it and has no tensor of its own."""
    replaced: Mapping[str, torch.Tensor]

    @classmethod
    def make(
        cls,
        source: SourceCheckpoint,
        format: CheckpointFormat,  # noqa: A002 - what it is
        quantised: Mapping[str, QuantisedWeight],
        schemes: Mapping[str, LinearScheme],
        replaced: Mapping[str, torch.Tensor],
        static_inputs: Mapping[str, StaticInput],
    ) -> CheckpointPlan:
        """Check everything against the source. Raises ConfigurationError for what the format cannot hold and
        IntegrityError for names, shapes or schemes that do not belong together."""
        if set(quantised) != set(schemes):
            raise IntegrityError(f"weights and schemes differ for {sorted(set(quantised) ^ set(schemes))[:3]}")
        modules = dict(source.skeleton.named_modules())
        items: dict[str, StoredItem] = {}
        twins: dict[str, str] = {}
        all_schemes: dict[str, LinearScheme] = {}
        for name in sorted(quantised):
            _check(name, modules.get(name), quantised[name], schemes[name], static_inputs.get(name))
            prefix, pair = source.stored_prefix(name), [name, *([source.twin[name]] if name in source.twin else [])]
            table = any(isinstance(modules[member], torch.nn.Embedding) for member in pair)
            item = StoredItem(quantised[name], schemes[name], static_inputs.get(name), table)
            if prefix in items and not _same(items[prefix], item):
                raise IntegrityError(f"{' and '.join(pair)} are one tensor, but were quantised differently")
            items[prefix] = item
            all_schemes |= dict.fromkeys(pair, schemes[name])
            owner = source.model_name[f"{prefix}.weight"].removesuffix(".weight")
            if len(pair) > 1:
                twins[prefix] = pair[0] if pair[1] == owner else pair[1]
        request = _request(source, modules, all_schemes, items)
        format.refuse(request)
        for prefix, item in items.items():
            format.refuse_weight(prefix, item.weight)
        return cls(format, request, items, twins, _by_stored_name(source, replaced, items))


def _check(
    name: str,
    module: torch.nn.Module | None,
    weight: QuantisedWeight,
    scheme: LinearScheme,
    static: StaticInput | None,
) -> None:
    if not isinstance(module, torch.nn.Linear | torch.nn.Embedding):
        found = "absent from the model" if module is None else f"a {type(module).__name__}"
        raise ConfigurationError(f"{name} is {found}; only linears and embeddings can be stored quantised. Keep it.")
    if tuple(weight.shape) != tuple(module.weight.shape) or weight.scheme != scheme.weight:
        raise IntegrityError(
            f"{name} is {tuple(module.weight.shape)} and to be {scheme.weight.name}, but its quantised weight is "
            f"{tuple(weight.shape)} and {weight.scheme.name}"
        )
    if scheme.activation is not None:
        InputRounding(scheme.activation, static)  # refuses a range that does not fit the scheme


def _request(
    source: SourceCheckpoint,
    modules: Mapping[str, torch.nn.Module],
    schemes: Mapping[str, LinearScheme],
    items: Mapping[str, StoredItem],
) -> FormatRequest:
    kept = {name for name, module in modules.items() if isinstance(module, torch.nn.Linear)} - set(schemes)
    found = {name: items[source.stored_prefix(name)] for name in schemes}
    return FormatRequest(
        schemes,
        kept=sorted(kept),
        others=sorted(name for name in modules if name and name not in kept and name not in schemes),
        embeddings=sorted(name for name, item in found.items() if item.embedding),
        shapes={name: item.weight.shape for name, item in found.items()},
    )


def _same(one: StoredItem, other: StoredItem) -> bool:
    return one.scheme == other.scheme and (
        one.weight is other.weight
        or (
            torch.equal(one.weight.codes.view(torch.uint8), other.weight.codes.view(torch.uint8))
            and torch.equal(one.weight.scale, other.weight.scale)
        )
    )


def _by_stored_name(
    source: SourceCheckpoint, replaced: Mapping[str, torch.Tensor], quantised: Collection[str]
) -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in replaced.items():
        stored = source.stored_name.get(name)
        if stored is None or stored.removesuffix(".weight") in quantised:
            raise IntegrityError(f"{name} has a new value, but {'is quantised' if stored else 'is not in the source'}")
        if source.files.shape(stored) != tuple(tensor.shape):
            raise IntegrityError(f"{name} is {source.files.shape(stored)}; its new value is {tuple(tensor.shape)}")
        found[stored] = tensor
    return found
