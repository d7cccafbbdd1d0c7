"""AWQ layout, GEMM version: AutoAWQ and its successors."""

from __future__ import annotations

from functools import partial

import torch

from foveal.core.errors import ModelLoadError
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.layouts import AwqTensors, from_awq
from foveal.kernels.quantisation.scheme import LinearScheme, WeightScheme
from foveal.models.quantised.readers.base import QuantisedCheckpoint
from foveal.models.quantised.stored_weight import StoredWeight
from foveal.models.quantised.tensor_files import TensorFiles

__all__ = ["read_awq"]

_PARTS = ("qweight", "qzeros", "scales")
_MIDDLE = -0x77777778  # eight zero points of 8, as int32


def read_awq(checkpoint: QuantisedCheckpoint) -> list[StoredWeight]:
    """See CheckpointReader."""
    version = str(checkpoint.config.get("version", "gemm")).lower()
    bits = checkpoint.config.get("bits", checkpoint.config.get("w_bit", 4))
    if version != "gemm" or bits != 4:
        raise ModelLoadError(
            f"this AWQ checkpoint is {version} with {bits} bits; only gemm with 4 is read. Convert it."
        )
    return [_stored(checkpoint, prefix) for prefix in checkpoint.prefixes("qweight")]


def _stored(checkpoint: QuantisedCheckpoint, prefix: str) -> StoredWeight:
    files, (out_features, in_features) = checkpoint.files, checkpoint.weight_shape(prefix)
    found, groups = files.shape(f"{prefix}.qweight"), files.shape(f"{prefix}.scales")[0]
    if found != (in_features, out_features // 8) or out_features % 8 or groups < 1 or in_features % groups:
        raise ModelLoadError(
            f"{prefix}.qweight is {found} with {groups} groups, which is no AWQ weight of [{out_features}, {in_features}]. "
            "Download or convert the checkpoint again."
        )
    symmetric = bool((files.read(f"{prefix}.qzeros") == _MIDDLE).all())
    scheme = WeightScheme("int", 4, symmetric, None if groups == 1 else in_features // groups)
    return StoredWeight(
        prefix=prefix,
        scheme=LinearScheme(scheme),
        tensors=frozenset(f"{prefix}.{part}" for part in _PARTS),
        read=partial(_read, files, prefix, scheme),
    )


def _read(files: TensorFiles, prefix: str, scheme: WeightScheme) -> QuantisedWeight:
    tensors: list[torch.Tensor] = [files.read(f"{prefix}.{part}") for part in _PARTS]
    return from_awq(AwqTensors(*tensors), scheme)
