"""A native product equals the torch product of the same codes, on every instruction set this processor has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

native = pytest.importorskip("foveal.kernels._native", reason="the native kernels were not built")

from foveal.core.errors import ConfigurationError  # noqa: E402
from foveal.kernels.native.linear import NativeEmbedding, NativeLinear  # noqa: E402
from foveal.kernels.native.packed_matrix import (  # noqa: E402
    NativeMatrix,
    interleave_halves,
    pack_dense,
    pack_quantised,
)
from foveal.kernels.quantisation.affine import QuantisedWeight, quantise  # noqa: E402
from foveal.kernels.quantisation.scheme import parse_weight  # noqa: E402

SCHEMES = [
    "int8",
    "int8-tensor",
    "int8-g32",
    "int8-g64",
    "int4-g32",
    "int4-g64",
    "int4-g32-asym",
    "int4-g64-asym",
    "int4",
    "int3-g32",
]


@pytest.fixture(params=native.available_instruction_sets(), autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    before = native.instruction_set()
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(before)


def rounded_inputs(x: torch.Tensor) -> torch.Tensor:
    """The torch reference of dynamic quantisation: 127 steps up to the largest of 32 neighbours."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % 32)).reshape(len(x), -1, 32)
    scale = padded.abs().amax(-1, keepdim=True) / 127
    codes = torch.where(scale > 0, padded / scale, 0).round()
    return (codes * scale).reshape(len(x), -1)[:, : x.shape[1]]


def reference(x: torch.Tensor, weight: QuantisedWeight, bias: torch.Tensor | None) -> torch.Tensor:
    product = rounded_inputs(x).double() @ weight.dequantise().double().T
    return product if bias is None else product + bias.double()


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert (found.double() - expected.double()).norm() <= tolerance * expected.double().norm() + 1e-30


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 32, 64), (3, 70, 128), (13, 33, 64), (29, 96, 192)])
def test_a_quantised_product_is_that_of_its_codes_with_rounded_inputs(
    scheme: str, rows: int, outputs: int, inputs: int
) -> None:
    generator = torch.Generator().manual_seed(rows * outputs)
    weight = quantise(torch.randn(outputs, inputs, generator=generator), parse_weight(scheme))
    bias = torch.randn(outputs, generator=generator) if rows % 2 else None
    x = torch.randn(rows, inputs, generator=generator)
    # Half precision of group scales is all that the packed form loses.
    assert_close(NativeLinear(pack_quantised(weight, bias))(x), reference(x, weight, bias), 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 7, 5), (4, 64, 33), (17, 50, 100)])
def test_a_dense_product_is_torchs(dtype: torch.dtype, rows: int, outputs: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(inputs)
    weight = torch.randn(outputs, inputs, generator=generator).to(dtype)
    bias = torch.randn(outputs, generator=generator)
    x = torch.randn(rows, inputs, generator=generator)
    assert_close(NativeLinear(pack_dense(weight, bias))(x), x.double() @ weight.double().T + bias, 1e-6)


def test_the_smallest_halves_count_where_the_engine_has_subnormal_floats_taken_for_zero() -> None:
    weight = torch.linspace(-6e-5, 6e-5, 32 * 32).reshape(32, 32).half()
    x = 1e4 * torch.ones(1, 32)
    expected = x.double() @ weight.double().T
    torch.set_flush_denormal(True)
    try:
        found = NativeLinear(pack_dense(weight))(x)
    finally:
        torch.set_flush_denormal(False)
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("scheme", ["int8", "int8-g64", "int4-g32-asym"])
def test_a_row_gives_the_same_bits_alone_and_in_any_batch(scheme: str) -> None:
    linear = NativeLinear(pack_quantised(quantise(torch.randn(96, 128), parse_weight(scheme))))
    x = torch.randn(31, 128)
    together = linear(x)
    for size in (1, 2, 5, 12, 16):
        apart = torch.cat([linear(part) for part in x.split(size)])
        assert torch.equal(together, apart)


@pytest.mark.parametrize("inputs", [24, 40, 100])
def test_int8_inputs_need_not_fill_a_group(inputs: int) -> None:
    weight = quantise(torch.randn(40, inputs), parse_weight("int8"))
    x = torch.randn(5, inputs)
    assert_close(NativeLinear(pack_quantised(weight))(x), reference(x, weight, None), 1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, -0.0, 1e-38, -1e-30, 1e30, 3.0, -127.0, 5e4]), min_size=32, max_size=32),
    st.integers(0, 31),
)
def test_extreme_inputs_stay_within_half_a_step_of_their_group(values: list[float], at: int) -> None:
    x = torch.tensor([values])
    weight = QuantisedWeight(torch.eye(32, dtype=torch.int8), torch.ones(32, 1), None, parse_weight("int8"))
    found = NativeLinear(pack_quantised(weight))(x)
    step = x.abs().max() / 127
    # The sum subtracts 128 times the codes' sum in integers, exactly; what is left is the rounding of one input.
    assert (found[0, at] - x[0, at]).abs() <= 0.5001 * step + 1e-35


def test_one_value_of_every_code_survives_packing() -> None:
    codes = torch.arange(-127, 128, dtype=torch.int8).repeat(32)[: 32 * 64].reshape(32, 64)
    weight = QuantisedWeight(codes, torch.full((32, 1), 0.5), None, parse_weight("int8"))
    x = torch.eye(64)
    assert torch.allclose(NativeLinear(pack_quantised(weight))(x), codes.T.float() * 0.5, rtol=1e-6)
    rows = NativeEmbedding(pack_quantised(weight))(torch.tensor([3, 31, 0]))
    assert torch.equal(rows, codes[[3, 31, 0]].float() * 0.5)


def test_rows_with_a_scale_per_group_are_read_as_they_are_multiplied() -> None:
    packed = pack_quantised(quantise(torch.randn(70, 96), parse_weight("int8-g32")))
    rows = NativeEmbedding(packed)(torch.arange(70))
    assert torch.allclose(rows, NativeLinear(packed)(torch.eye(96)).T, rtol=1e-6)


def test_an_id_outside_the_table_is_refused() -> None:
    table = NativeEmbedding(pack_quantised(quantise(torch.randn(40, 32), parse_weight("int8"))))
    with pytest.raises(ValueError, match="outside"):
        table(torch.tensor([40]))


@pytest.mark.parametrize("half", [16, 20, 48])
def test_gate_and_up_in_turns_give_silu_of_the_gate_times_up(half: int) -> None:
    gate, up, x = torch.randn(half, 64), torch.randn(half, 64), torch.randn(5, 64)
    matrix: NativeMatrix = pack_dense(interleave_halves(torch.cat((gate, up))))
    out = torch.empty(5, matrix.out_features // 2)
    native.linear(matrix.handle, x.numpy(), out.numpy(), "silu_mul", 1)
    assert torch.allclose(out[:, :half], torch.nn.functional.silu(x @ gate.T) * (x @ up.T), rtol=1e-4, atol=1e-5)
    assert (out[:, half:] == 0).all()


def test_adding_writes_onto_what_is_there() -> None:
    weight, x, residual = torch.randn(40, 32), torch.randn(3, 32), torch.randn(3, 40)
    out = residual.clone()
    native.linear(pack_dense(weight).handle, x.numpy(), out.numpy(), "add", 2)
    assert torch.allclose(out, residual + x @ weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", ["int8-asym", "nf4-g64", "fp8"])
def test_codes_that_the_kernels_do_not_read_are_refused_by_name(scheme: str) -> None:
    weight = quantise(torch.randn(32, 64), parse_weight(scheme))
    with pytest.raises(ConfigurationError, match=scheme):
        pack_quantised(weight)


@pytest.mark.parametrize("width", [5, 16, 64, 100])
def test_rms_norm_is_torchs(width: int) -> None:
    x, weight = torch.randn(3, width) * 10, torch.randn(width)
    out = torch.empty_like(x)
    native.rms_norm(x.numpy(), weight.numpy(), 1e-5, out.numpy())
    assert torch.allclose(out, torch.nn.functional.rms_norm(x, (width,), weight, 1e-5), rtol=1e-5, atol=1e-6)
