"""Packed layouts: exact inverses, the bits that the formats name, and the libraries that own them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.layouts import from_awq, from_gptq, gptq_dequantise, to_awq, to_gptq
from foveal.kernels.quantisation.packing import (
    pack_along_input,
    pack_along_output,
    pack_awq,
    pack_int4,
    pack_words,
    unpack_along_input,
    unpack_along_output,
    unpack_awq,
    unpack_int4,
    unpack_words,
)
from foveal.kernels.quantisation.scheme import WeightScheme, parse_weight

bit_widths = st.integers(2, 8)


def _values(bits: int, rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.uint8)


@settings(max_examples=50, deadline=None)
@given(bit_widths, st.integers(1, 5), st.integers(1, 100), st.integers(0, 99))
def test_words_are_read_back_exactly(bits, rows, columns, seed):
    values = _values(bits, rows, columns, seed)
    words = pack_words(values, bits)
    assert words.shape == (rows, -(-columns * bits // 32))
    assert torch.equal(unpack_words(words, bits, columns), values)


@settings(max_examples=50, deadline=None)
@given(bit_widths, st.integers(1, 100), st.integers(0, 99))
def test_a_row_is_one_long_number_with_the_first_value_lowest(bits, columns, seed):
    values = _values(bits, 1, columns, seed)
    number = sum(int(value) << (index * bits) for index, value in enumerate(values[0]))
    words = pack_words(values, bits)[0]
    assert sum((int(word) & 0xFFFFFFFF) << (32 * index) for index, word in enumerate(words)) == number


@settings(max_examples=50, deadline=None)
@given(bit_widths, st.integers(1, 40), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_codes_and_zero_points_are_read_back_exactly(bits, rows, columns, symmetric, seed):
    codes = _values(bits, rows, columns, seed)
    zero_points = codes.int()
    if symmetric:
        codes = (codes.int() - 2 ** (bits - 1)).to(torch.int8)
    packed = pack_along_input(codes, bits)
    assert torch.equal(unpack_along_input(packed, bits, columns, symmetric=symmetric), codes)
    assert torch.equal(unpack_along_output(pack_along_output(zero_points, bits), bits, rows), zero_points)


def test_four_bit_codes_stand_low_nibble_first_plus_eight():
    codes = torch.tensor([[-8, -7, -1, 0, 1, 2, 6, 7]], dtype=torch.int8)
    assert int(pack_int4(codes)[0, 0]) & 0xFFFFFFFF == 0xFEA98710
    assert torch.equal(unpack_int4(pack_int4(codes), 8), codes)


@settings(max_examples=50, deadline=None)
@given(bit_widths, st.integers(1, 20), st.integers(1, 70), st.integers(0, 99))
def test_packing_is_compressed_tensors_to_the_bit(bits, rows, columns, seed):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    codes = (_values(bits, rows, columns, seed).int() - 2 ** (bits - 1)).to(torch.int8)
    assert torch.equal(pack_along_input(codes, bits), helpers.pack_to_int32(codes, bits))
    unsigned = codes.int() + 2 ** (bits - 1)
    assert torch.equal(pack_along_output(unsigned, bits), helpers.pack_to_int32(codes, bits, packed_dim=0))


@pytest.mark.parametrize("name", ["int4-g64", "int4-g32-asym", "int3-g64-asym", "int8-asym", "int4"])
def test_compressed_tensors_dequantises_our_tensors_to_our_weight(name):
    base = pytest.importorskip("compressed_tensors.compressors.pack_quantized.base")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    scheme = parse_weight(name)
    ours = quantise(torch.randn(24, 128, generator=torch.Generator().manual_seed(0)), scheme)
    arguments = quantization.QuantizationArgs(
        num_bits=scheme.bits,
        symmetric=scheme.symmetric,
        strategy="channel" if scheme.group is None else "group",
        group_size=scheme.group,
    )
    state = {
        "weight_packed": pack_along_input(ours.codes, scheme.bits),
        "weight_scale": ours.scale,
        "weight_shape": torch.tensor(ours.shape),
    }
    if ours.zero_point is not None:
        state["weight_zero_point"] = pack_along_output(ours.zero_point, scheme.bits)
    theirs = base.PackedQuantizationCompressor.decompress(
        state, quantization.QuantizationScheme(targets=["Linear"], weights=arguments)
    )
    assert torch.equal(theirs["weight"].float(), ours.dequantise())


def test_awq_nibbles_stand_in_the_order_of_autoawq():
    """AutoAWQ: order_map = [0, 2, 4, 6, 1, 3, 5, 7]; word |= column[order_map[i]] << 4 i."""
    columns = torch.arange(8, dtype=torch.uint8)[None]
    assert int(pack_awq(columns)[0, 0]) == sum(value << (4 * i) for i, value in enumerate([0, 2, 4, 6, 1, 3, 5, 7]))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_awq_words_are_read_back_exactly(rows, words, seed):
    values = _values(4, rows, 8 * words, seed)
    assert torch.equal(unpack_awq(pack_awq(values)), values)


def _same(one, other):
    assert one.scheme == other.scheme
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.scale, other.scale)
    assert (one.zero_point is None) == (other.zero_point is None)
    assert one.zero_point is None or torch.equal(one.zero_point, other.zero_point)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["int4-g32", "int4-g64-asym", "int8-g128", "int2-g32", "int3-g32", "int4"])
def test_gptq_tensors_are_read_back_exactly(name, version):
    weight = quantise(torch.randn(64, 128, generator=torch.Generator().manual_seed(1)), parse_weight(name))
    tensors = to_gptq(weight, version=version)
    _same(from_gptq(tensors, weight.scheme, version=version), weight)
    assert torch.equal(gptq_dequantise(tensors, weight.scheme.bits, version=version), weight.dequantise())


def test_gptq_tensors_have_the_documented_shapes_and_values():
    weight = quantise(torch.randn(16, 64, generator=torch.Generator().manual_seed(2)), parse_weight("int4-g32"))
    tensors = to_gptq(weight)
    assert (tensors.qweight.shape, tensors.qzeros.shape, tensors.scales.shape) == ((8, 16), (2, 2), (2, 16))
    first = int(tensors.qweight[0, 3]) & 0xFFFFFFFF
    assert [first >> (4 * index) & 15 for index in range(8)] == (weight.codes[3, :8].int() + 8).tolist()
    assert (tensors.qzeros == 0x77777777).all()
    assert tensors.g_idx.tolist() == [0] * 32 + [1] * 32


def test_gptq_version_1_cannot_hold_a_zero_point_of_zero_and_says_so():
    weight = quantise(torch.rand(8, 32), WeightScheme(symmetric=False, group_size=32))
    assert (weight.zero_point == 0).all()
    with pytest.raises(ConfigurationError, match="gptq_v2"):
        to_gptq(weight)
    _same(from_gptq(to_gptq(weight, version=2), weight.scheme, version=2), weight)


def test_gptq_with_inputs_in_activation_order_dequantises_by_group_index():
    weight = quantise(torch.randn(8, 64, generator=torch.Generator().manual_seed(3)), parse_weight("int4-g32"))
    tensors = to_gptq(weight)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(4))
    shuffled = to_gptq(quantise(weight.dequantise(), weight.scheme, weight.scale))
    codes = unpack_words(tensors.qweight.T, 4, 64)[:, order]
    shuffled = type(tensors)(pack_words(codes, 4).T, tensors.qzeros, tensors.scales, tensors.g_idx[order])
    assert torch.equal(gptq_dequantise(shuffled, 4), weight.dequantise()[:, order])
    with pytest.raises(ConfigurationError, match="not contiguous"):
        from_gptq(shuffled, weight.scheme)


@pytest.mark.parametrize("name", ["int4-g32", "int4-g64-asym", "int4"])
def test_awq_tensors_are_read_back_exactly(name):
    weight = quantise(torch.randn(24, 128, generator=torch.Generator().manual_seed(5)), parse_weight(name))
    tensors = to_awq(weight)
    assert tensors.qweight.shape == (128, 3)
    _same(from_awq(tensors, weight.scheme), weight)


@pytest.mark.parametrize(
    ("write", "name", "shape", "message"),
    [
        (to_awq, "int8-g32", (8, 32), "4-bit codes"),
        (to_awq, "int4-g32", (12, 32), "multiple of 8"),
        (to_awq, "nf4-g32", (8, 32), "not nf4-g32"),
        (to_gptq, "fp8", (8, 32), "not fp8"),
        (to_gptq, "int4", (8, 36), "input of 36"),
        (to_gptq, "int4-tensor", (8, 32), "not int4-tensor"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused_with_another_layout(write, name, shape, message):
    with pytest.raises(ConfigurationError, match=f"{message}.*\n?.*") as caught:
        write(quantise(torch.randn(shape), parse_weight(name)))
    assert "Use compressed-tensors" in str(caught.value)
