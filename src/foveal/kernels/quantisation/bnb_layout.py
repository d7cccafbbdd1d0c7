"""An NF4 weight as the tensors that bitsandbytes saves and loads (`Params4bit`, `QuantState`), and back.

Beside the packed weight under its own name stand tensors whose names continue it with a dot; what is not a tensor (block
size, shape, types, the nested offset) is JSON in bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from foveal.core.errors import ConfigurationError, ModelLoadError
from foveal.kernels.quantisation import nf4
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.double_quantisation import NestedScale, dynamic_map
from foveal.kernels.quantisation.scheme import NESTED_BLOCK, WeightScheme

__all__ = ["bnb_dequantise", "from_bnb", "pack_nf4", "to_bnb", "unpack_nf4"]

_STATE = "quant_state.bitsandbytes__nf4"


def pack_nf4(codes: Tensor) -> Tensor:
    """Indices [out, in] row by row, two to a byte, the first in the high half: uint8 [ceil(out * in / 2), 1]."""
    flat = codes.reshape(-1)
    flat = torch.nn.functional.pad(flat, (0, flat.numel() % 2))
    return (flat[::2] << 4 | flat[1::2]).unsqueeze(1)


def unpack_nf4(packed: Tensor, shape: tuple[int, int]) -> Tensor:
    """Inverse of `pack_nf4`: uint8 [out, in]."""
    flat = packed.reshape(-1)
    return torch.stack([flat >> 4, flat & 0xF], dim=1).reshape(-1)[: shape[0] * shape[1]].reshape(shape)


def to_bnb(weight: QuantisedWeight, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Tensors by the suffix of their name (the packed weight's is empty); `dtype` is what the weight is computed in.

    Raises ConfigurationError for a weight that is not NF4.
    """
    scheme = weight.scheme
    if scheme.kind != "nf4":
        raise ConfigurationError(f"bitsandbytes' NF4 layout cannot hold {scheme.name}. Use compressed-tensors.")
    state: dict[str, object] = {
        "quant_type": "nf4",
        "blocksize": scheme.group,
        "dtype": str(dtype).removeprefix("torch."),
        "shape": list(weight.shape),
    }
    tensors = {"": pack_nf4(weight.codes), "quant_map": nf4.CODEBOOK.clone()}
    if weight.nested is None:
        tensors["absmax"] = weight.scale.reshape(-1)
    else:
        tensors["absmax"] = weight.nested.codes.reshape(-1)
        tensors["nested_absmax"] = weight.nested.absmax
        tensors["nested_quant_map"] = dynamic_map().clone()
        state |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": weight.nested.offset}
    tensors[_STATE] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return tensors


def from_bnb(tensors: Mapping[str, Tensor]) -> QuantisedWeight:
    """Inverse of `to_bnb`. Raises ModelLoadError for another codebook or nesting than bitsandbytes' own, and for blocks
    that cross rows: those weights have no group layout, see `bnb_dequantise`."""
    state, codes, absmax, nested = _read(tensors)
    rows, columns = codes.shape
    block = state["blocksize"]
    if columns % block:
        raise ModelLoadError(
            f"NF4 blocks of {block} cross the rows of a weight [{rows}, {columns}]. Dequantise it instead."
        )
    scheme = WeightScheme("nf4", 4, True, block, nested is not None)
    if nested is not None:
        nested = NestedScale(nested.codes.reshape(rows, columns // block), nested.absmax, nested.offset)
    return QuantisedWeight(codes, absmax.reshape(rows, columns // block), None, scheme, nested)


def bnb_dequantise(tensors: Mapping[str, Tensor]) -> Tensor:
    """The weight float32 [out, in] of any NF4 linear of bitsandbytes. Raises ModelLoadError as `from_bnb` does."""
    state, codes, absmax, _ = _read(tensors)
    spread = absmax.repeat_interleave(state["blocksize"])[: codes.numel()]
    return nf4.decode(codes, spread.reshape(codes.shape))


def _read(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], Tensor, Tensor, NestedScale | None]:
    """Description, indices [out, in], block maxima float32 [blocks], and how those were stored."""
    if _STATE not in tensors:
        raise ModelLoadError(
            f"an NF4 weight has no {_STATE!r} beside it: it is another 4-bit type, or the file is cut."
        )
    state = json.loads(bytes(tensors[_STATE].tolist()))
    rows, columns = state["shape"]
    if not torch.equal(tensors["quant_map"].float(), nf4.CODEBOOK):
        raise ModelLoadError("an NF4 weight comes with another codebook than bitsandbytes' own. Export it again.")
    codes = unpack_nf4(tensors[""], (rows, columns))
    absmax = tensors["absmax"].reshape(-1)
    if "nested_absmax" not in tensors:
        return state, codes, absmax.float(), None
    same_map = torch.equal(tensors["nested_quant_map"].float(), dynamic_map())
    if state["nested_blocksize"] != NESTED_BLOCK or not same_map:
        raise ModelLoadError(
            f"block maxima are nested by {state['nested_blocksize']} or with an unknown map; only {NESTED_BLOCK} with the "
            "dynamic map is read. Export again with bitsandbytes' defaults."
        )
    nested = NestedScale(absmax, tensors["nested_absmax"].float(), float(state["nested_offset"]))
    return state, codes, nested.decode(), nested
