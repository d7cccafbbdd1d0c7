"""NF4 tensors as bitsandbytes saves them: exact inverse, and bitsandbytes itself reads them."""

from __future__ import annotations

import pytest
import torch

from foveal.core.errors import ConfigurationError, ModelLoadError
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.bnb_layout import bnb_dequantise, from_bnb, pack_nf4, to_bnb, unpack_nf4
from foveal.kernels.quantisation.double_quantisation import dynamic_map, nest
from foveal.kernels.quantisation.scheme import parse_weight

NAMES = ["nf4-g32", "nf4-g64", "nf4-g64-dq", "nf4-g128-dq"]


@pytest.fixture
def weight():
    return torch.randn(96, 256, generator=torch.Generator().manual_seed(0)) * 0.05


@pytest.fixture(scope="module")
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", exc_type=ImportError)


def test_the_first_of_two_indices_is_in_the_high_half():
    assert pack_nf4(torch.tensor([[1, 2, 15]], dtype=torch.uint8)).tolist() == [[0x12], [0xF0]]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 64)])
def test_indices_are_read_back_exactly(shape):
    codes = torch.randint(0, 16, shape, dtype=torch.uint8)
    assert torch.equal(unpack_nf4(pack_nf4(codes), shape), codes)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_read_back_exactly(weight, name):
    ours = quantise(weight, parse_weight(name))
    again = from_bnb(to_bnb(ours))
    assert again.scheme == ours.scheme
    assert torch.equal(again.codes, ours.codes)
    assert torch.equal(again.scale, ours.scale)
    assert torch.equal(bnb_dequantise(to_bnb(ours)), ours.dequantise())


@pytest.mark.parametrize("name", NAMES)
def test_bitsandbytes_reads_our_tensors_to_the_same_weight(bitsandbytes, weight, name):
    functional = bitsandbytes.functional
    ours = quantise(weight, parse_weight(name))
    tensors = to_bnb(ours, torch.float32)
    packed = tensors.pop("")
    state = functional.QuantState.from_dict(
        {f"weight.{suffix}": t for suffix, t in tensors.items()}, torch.device("cpu")
    )
    assert torch.equal(functional.dequantize_4bit(packed, state), ours.dequantise())


@pytest.mark.parametrize("block", [32, 64, 128])
def test_codes_are_those_of_bitsandbytes_to_the_bit(bitsandbytes, weight, block):
    packed, state = bitsandbytes.functional.quantize_4bit(weight, blocksize=block, quant_type="nf4")
    ours = quantise(weight, parse_weight(f"nf4-g{block}"))
    assert torch.equal(pack_nf4(ours.codes), packed)
    assert torch.equal(ours.scale.reshape(-1), state.absmax)


def test_nested_maxima_are_those_of_bitsandbytes(bitsandbytes, weight):
    functional = bitsandbytes.functional
    _, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    maxima = weight.reshape(96, 4, 64).abs().amax(dim=2)
    nested = nest(maxima)
    assert torch.equal(dynamic_map(), state.state2.code)
    assert torch.equal(nested.absmax, state.state2.absmax)
    assert nested.offset == state.offset.item()
    theirs = (functional.dequantize_blockwise(state.absmax, state.state2) + state.offset).reshape(96, 4)
    # Its search near zero stops a code or two early; ours takes the nearest.
    assert (nested.codes.reshape(-1) != state.absmax).float().mean() < 0.02
    assert ((nested.decode() - maxima).abs() <= (theirs - maxima).abs() + 1e-8).all()


@pytest.mark.parametrize("nested", [False, True])
def test_we_read_what_bitsandbytes_saves_even_when_blocks_cross_rows(bitsandbytes, nested):
    functional = bitsandbytes.functional
    weight = torch.randn(16, 100, generator=torch.Generator().manual_seed(6))
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    tensors = {"": packed} | state.as_dict(packed=True)
    assert torch.equal(bnb_dequantise(tensors), functional.dequantize_4bit(packed, state))
    with pytest.raises(ModelLoadError, match="cross the rows"):
        from_bnb(tensors)


def test_what_is_not_nf4_is_refused(weight):
    with pytest.raises(ConfigurationError, match="cannot hold int4"):
        to_bnb(quantise(weight, parse_weight("int4")))
    tensors = to_bnb(quantise(weight, parse_weight("nf4-g64")))
    with pytest.raises(ModelLoadError, match="another codebook"):
        from_bnb(tensors | {"quant_map": torch.zeros(16)})
    with pytest.raises(ModelLoadError, match="another 4-bit type, or the file is cut"):
        from_bnb({"": tensors[""], "absmax": tensors["absmax"]})
