"""Finished blocks on disk, so that a killed compression goes on where it stopped."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from foveal.artifacts.storage import explain_storage_errors
from foveal.compression.records import BlockResult, LinearRecord
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.double_quantisation import NestedScale
from foveal.kernels.quantisation.scheme import parse_linear
from foveal.models.quantised.input_rounding import StaticInput

__all__ = ["BlockFiles"]

_VERSION = 1


class BlockFiles:
    """One safetensors file a block, tensors and records together, put under its name only when it is complete.

    The folder belongs to one `job`: files of another are not read.
    """

    def __init__(self, folder: Path, job: str) -> None:
        self.folder = folder
        self.job = job
        with explain_storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def load(self, block: str) -> BlockResult | None:
        """The result of a block, or None if it is not there, belongs to another job or is damaged."""
        path = self._path(block)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {}).get("foveal", "{}"))
                if (header.get("version"), header.get("job")) != (_VERSION, self.job):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, ValueError, OSError):
            return None
        return _read(header, tensors)

    def save(self, block: str, result: BlockResult) -> None:
        """Write a block. Raises StorageError when the disk is full."""
        tensors, header = _written(result)
        header |= {"version": _VERSION, "job": self.job}
        path = self._path(block)
        partial = path.with_suffix(".partial")
        with explain_storage_errors(path):
            save_file(tensors, partial, metadata={"foveal": json.dumps(header)})
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)

    def _path(self, block: str) -> Path:
        return self.folder / f"{block or 'model'}.safetensors"


def _written(result: BlockResult) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors: dict[str, torch.Tensor] = {}
    offsets: dict[str, float] = {}
    for name, weight in result.weights.items():
        tensors |= {f"codes/{name}": weight.codes, f"scale/{name}": weight.scale}
        if weight.zero_point is not None:
            tensors[f"zero/{name}"] = weight.zero_point
        if weight.nested is not None:
            tensors |= {f"nested_codes/{name}": weight.nested.codes, f"nested_absmax/{name}": weight.nested.absmax}
            offsets[name] = weight.nested.offset
    for name, static in result.static_inputs.items():
        tensors[f"input_scale/{name}"] = static.scale
        if static.zero_point is not None:
            tensors[f"input_zero/{name}"] = static.zero_point
    tensors |= {f"replaced/{name}": tensor for name, tensor in result.replaced.items()}
    header = {
        "schemes": {name: scheme.name for name, scheme in result.schemes.items()},
        "nested_offsets": offsets,
        "records": [asdict(record) for record in result.records],
    }
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, header


def _read(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> BlockResult:
    result = BlockResult(records=[LinearRecord(**values) for values in header["records"]])
    for name, scheme_name in header["schemes"].items():
        scheme = result.schemes[name] = parse_linear(scheme_name)
        nested = None
        if f"nested_codes/{name}" in tensors:
            codes, absmax = tensors[f"nested_codes/{name}"], tensors[f"nested_absmax/{name}"]
            nested = NestedScale(codes, absmax, header["nested_offsets"][name])
        result.weights[name] = QuantisedWeight(
            tensors[f"codes/{name}"], tensors[f"scale/{name}"], tensors.get(f"zero/{name}"), scheme.weight, nested
        )
        if f"input_scale/{name}" in tensors:
            result.static_inputs[name] = StaticInput(tensors[f"input_scale/{name}"], tensors.get(f"input_zero/{name}"))
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "replaced":
            result.replaced[rest] = tensor
    return result
