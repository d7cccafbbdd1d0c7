"""What a compressed checkpoint will hold, decided from names and shapes before anything is written."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from foveal.compression.formats.base import CheckpointFormat, FormatRequest
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
        tied = getattr(self.skeleton, "all_tied_weights_keys", None) or {}
        for name, twin in tied.items():
            for absent, present in ((name, twin), (twin, name)):
                if absent not in self.stored_name and present in self.stored_name:
                    self.stored_name[absent] = self.stored_name[present]

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
    quantised: Mapping[str, tuple[QuantisedWeight, LinearScheme, StaticInput | None]]
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
        by_prefix: dict[str, tuple[QuantisedWeight, LinearScheme, StaticInput | None]] = {}
        owners: dict[str, str] = {}
        for name in sorted(quantised):
            _check(name, modules.get(name), quantised[name], schemes[name], static_inputs.get(name))
            prefix = source.stored_prefix(name)
            if prefix in by_prefix and not _same(by_prefix[prefix][0], quantised[name]):
                raise IntegrityError(f"{owners[prefix]} and {name} are one tensor, but were quantised differently")
            # Of a tied pair, the one whose name is in the files.
            if source.model_name[f"{prefix}.weight"] == f"{name}.weight" or prefix not in by_prefix:
                owners[prefix] = source.model_name[f"{prefix}.weight"].removesuffix(".weight")
                by_prefix[prefix] = (quantised[name], schemes[name], static_inputs.get(name))
        request = _request(modules, {owners[prefix]: item[1] for prefix, item in by_prefix.items()}, set(quantised))
        format.refuse(replace(request, shapes={owners[p]: tuple(w.codes.shape) for p, (w, _, _) in by_prefix.items()}))
        return cls(format, request, by_prefix, _by_stored_name(source, replaced, by_prefix))


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
    if tuple(weight.codes.shape) != tuple(module.weight.shape) or weight.scheme != scheme.weight:
        raise IntegrityError(
            f"{name} is {tuple(module.weight.shape)} and to be {scheme.weight.name}, but its quantised weight is "
            f"{tuple(weight.codes.shape)} and {weight.scheme.name}"
        )
    if scheme.activation is not None:
        InputRounding(scheme.activation, static)  # refuses a range that does not fit the scheme


def _request(
    modules: Mapping[str, torch.nn.Module], schemes: Mapping[str, LinearScheme], quantised: Collection[str]
) -> FormatRequest:
    linears = {name for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    tables = {name for name in schemes if isinstance(modules[name], torch.nn.Embedding)}
    return FormatRequest(schemes, sorted(linears - set(schemes) - set(quantised)), sorted(tables))


def _same(one: QuantisedWeight, other: QuantisedWeight) -> bool:
    return one is other or (
        one.scheme == other.scheme
        and torch.equal(one.codes.view(torch.uint8), other.codes.view(torch.uint8))
        and torch.equal(one.scale, other.scale)
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
