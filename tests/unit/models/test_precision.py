"""Which number format a model runs in."""

from __future__ import annotations

import pytest
import torch

from foveal.core.errors import ConfigurationError
from foveal.models.precision import has_fast_bfloat16, resolve_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(params=[True, False], ids=["hardware bfloat16", "emulated bfloat16"])
def fast(request, monkeypatch) -> bool:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": request.param})
    return request.param


def test_auto_keeps_bfloat16_only_where_the_hardware_multiplies_it(fast):
    assert has_fast_bfloat16(CPU) == fast
    assert resolve_dtype("auto", torch.bfloat16, CPU) == (torch.bfloat16 if fast else torch.float32)
    assert resolve_dtype("auto", torch.bfloat16, GPU) == torch.bfloat16


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, None])
@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_auto_runs_every_other_checkpoint_in_float32(stored, device, fast):
    assert resolve_dtype("auto", stored, device) == torch.float32


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, None])
def test_an_explicit_format_is_obeyed(stored, fast):
    assert resolve_dtype("float32", stored, CPU) == torch.float32
    assert resolve_dtype("bfloat16", stored, CPU) == torch.bfloat16


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", "bf16"])
def test_any_of_the_known_units_counts_as_fast(capability, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert has_fast_bfloat16(CPU)


def test_another_name_is_refused_with_the_three_that_exist():
    with pytest.raises(ConfigurationError, match=r"dtype is 'float16'; it must be auto, float32 or bfloat16"):
        resolve_dtype("float16", None, CPU)
