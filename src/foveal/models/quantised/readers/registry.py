"""Which reader understands a `quantization_config`."""

from __future__ import annotations

from foveal.core.errors import ModelLoadError
from foveal.models.quantised.readers.awq import read_awq
from foveal.models.quantised.readers.base import QuantisedCheckpoint
from foveal.models.quantised.readers.compressed_tensors import read_compressed_tensors
from foveal.models.quantised.readers.gptq import read_gptq
from foveal.models.quantised.readers.nf4 import read_nf4
from foveal.models.quantised.stored_weight import StoredWeight

__all__ = ["find_stored_weights"]

_READERS = {
    "awq": read_awq,
    "bitsandbytes": read_nf4,
    "compressed-tensors": read_compressed_tensors,
    "gptq": read_gptq,
}


def find_stored_weights(checkpoint: QuantisedCheckpoint) -> list[StoredWeight]:
    """Every quantised weight of the checkpoint. Raises ModelLoadError for a layout that is not read, or none found."""
    method = checkpoint.config.get("quant_method")
    if method not in _READERS:
        raise ModelLoadError(
            f"{checkpoint.files.directory} is quantised with {method}; the layouts that are read are "
            f"{', '.join(_READERS)}. Use the original checkpoint, or convert it to one of these."
        )
    weights = _READERS[method](checkpoint)
    if not weights:
        raise ModelLoadError(
            f"config.json of {checkpoint.files.directory} says {method}, but no weight is stored that way. Remove "
            "quantization_config if the weights are whole, or download the checkpoint again."
        )
    return weights
