"""DenseLinear equals torch's own product, whichever layout it picks for the number of rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.models import linears
from foveal.models.linears import MAX_TRANSPOSED_ROWS, MIN_TRANSPOSED_ROWS, DenseLinear


def linear(in_features: int, out_features: int, *, bias: bool, seed: int = 0, dtype=torch.float32) -> DenseLinear:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((out_features, in_features), generator=generator).to(dtype)
    return DenseLinear(weight, torch.randn(out_features, generator=generator).to(dtype) if bias else None)


@settings(deadline=None, max_examples=60)
@given(
    num_rows=st.integers(0, 2 * MAX_TRANSPOSED_ROWS),
    in_features=st.integers(1, 40),
    out_features=st.integers(1, 40),
    bias=st.booleans(),
    strided=st.booleans(),
)
def test_every_number_of_rows_gives_torchs_product(num_rows, in_features, out_features, bias, strided):
    layer = linear(in_features, out_features, bias=bias)
    x = torch.randn((num_rows, 2 * in_features), generator=torch.Generator().manual_seed(1))
    x = x[:, ::2] if strided else x[:, :in_features].contiguous()
    expected = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_rows", [1, MIN_TRANSPOSED_ROWS, MAX_TRANSPOSED_ROWS, MAX_TRANSPOSED_ROWS + 1])
def test_the_result_is_contiguous_and_the_callers_to_overwrite(num_rows):
    layer = linear(6, 5, bias=True)
    x = torch.randn(num_rows, 6)
    out = layer(x)
    assert out.is_contiguous()
    again = layer(x)
    out.zero_()
    torch.testing.assert_close(layer(x), again, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("num_rows", "dtype", "plain"),
    [
        (MIN_TRANSPOSED_ROWS - 1, torch.float32, True),
        (MIN_TRANSPOSED_ROWS, torch.float32, False),
        (MAX_TRANSPOSED_ROWS, torch.float32, False),
        (MAX_TRANSPOSED_ROWS + 1, torch.float32, True),
        (MIN_TRANSPOSED_ROWS, torch.bfloat16, True),
    ],
)
def test_only_a_few_float32_rows_take_the_transposed_product(num_rows, dtype, plain, monkeypatch):
    original, calls = F.linear, []
    monkeypatch.setattr(linears.F, "linear", lambda *args: calls.append(args) or original(*args))
    linear(6, 5, bias=False, dtype=dtype)(torch.randn(num_rows, 6).to(dtype))
    assert bool(calls) == plain


def test_adopted_modules_become_views_and_keep_their_results():
    modules = [torch.nn.Linear(6, width).requires_grad_(False) for width in (4, 2, 3)]
    x = torch.randn(2, 6)
    expected = [module(x) for module in modules]
    packed = DenseLinear.adopt(modules)
    torch.testing.assert_close(packed(x), torch.cat(expected, -1))
    for module, result in zip(modules, expected, strict=True):
        assert module.weight.untyped_storage().data_ptr() == packed.weight.untyped_storage().data_ptr()
        torch.testing.assert_close(module(x), result, rtol=0, atol=0)


def test_a_single_adopted_module_is_not_copied():
    module = torch.nn.Linear(6, 4, bias=False)
    assert DenseLinear.adopt([module]).weight.data_ptr() == module.weight.data_ptr()
