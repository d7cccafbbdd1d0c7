"""A model on native kernels computes with the codes that its checkpoint holds, and with rounded weights where asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("foveal.kernels._native", reason="the native kernels were not built")

from foveal.core.errors import ConfigurationError
from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import parse_weight
from foveal.models.base import ModelStep
from foveal.models.language_model import TransformersModel
from foveal.models.loading import load_checkpoint, load_model
from foveal.models.quantised.rounded_linear import RoundedInputLinear
from support.quantised_checkpoints import all_linears, write_rounded
from support.tiny_models import tiny_checkpoint

TOKENS = torch.arange(3, 23)


def kv_cache(model: TransformersModel, dtype: torch.dtype = torch.float32) -> KVCache:
    spec = model.spec
    vectors = (spec.num_layers, 32, spec.num_kv_heads)
    key, value = (torch.zeros(*vectors, spec.head_dim, dtype=dtype) for _ in range(2))
    if dtype == torch.float32:
        return KVCache(key, value, 4)
    return KVCache(key, value, 4, torch.zeros(vectors), torch.zeros(vectors))


def logits(model: TransformersModel, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[20, vocab] of one prompt."""
    count = len(TOKENS)
    batch = AttentionBatch(torch.arange(count), torch.arange(8)[None], [0, count], [count])
    step = ModelStep(TOKENS, torch.arange(count)[None], None, None, batch)
    return model.compute_logits(model.forward(step, kv_cache(model, dtype)))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


class GroupRounding:
    """The torch reference of what native kernels do to inputs: 127 steps up to the largest of 32 neighbours."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        groups = torch.nn.functional.pad(x, (0, -x.shape[-1] % 32)).unflatten(-1, (-1, 32))
        scale = groups.abs().amax(-1, keepdim=True) / 127
        rounded = torch.where(scale > 0, groups / scale, 0).round() * scale
        return rounded.flatten(-2)[..., : x.shape[-1]]

    def same_as(self, other: object) -> bool:
        return True


def oracle(directory: Path, weight_scheme: str | None = None) -> torch.Tensor:
    """Logits of the torch decoder on dequantised weights, every linear but the head rounding its input in groups."""
    loaded = load_checkpoint(directory, dtype="float32")
    for name, module in list(loaded.model.get_decoder().named_modules()):
        if isinstance(module, torch.nn.Linear):
            if weight_scheme is not None:
                module.weight.data.copy_(quantise(module.weight.detach(), parse_weight(weight_scheme)).dequantise())
            parent, _, attribute = name.rpartition(".")
            rounded = RoundedInputLinear(module, GroupRounding())  # type: ignore[arg-type]
            setattr(loaded.model.get_decoder().get_submodule(parent), attribute, rounded)
    return logits(TransformersModel(loaded.model, loaded.family, "fused"))


@pytest.fixture(scope="module")
def float_logits() -> torch.Tensor:
    return logits(load_model(tiny_checkpoint("llama"), dtype="float32", decoder="fused"))


def test_unrounded_weights_give_the_logits_of_torch(float_logits: torch.Tensor) -> None:
    model = load_model(tiny_checkpoint("llama"), quantize="none")
    assert model.decoder == "native"
    assert relative_error(logits(model), float_logits) < 1e-5


def test_int8_on_load_is_the_reference_with_int8_weights(float_logits: torch.Tensor) -> None:
    """The head and the embedding are rounded as well, which the oracle leaves out: hence not a tighter bound."""
    found = logits(load_model(tiny_checkpoint("llama"), quantize="int8"))
    expected = oracle(tiny_checkpoint("llama"), "int8-g32")
    assert relative_error(found, expected) < 0.05
    assert relative_error(found, float_logits) < 0.2


def test_fewer_bits_on_load_are_coarser_and_still_the_same_model(float_logits: torch.Tensor) -> None:
    modes = ("none", "bfloat16", "int8", "int4")
    errors = [relative_error(logits(load_model(tiny_checkpoint("llama"), quantize=m)), float_logits) for m in modes]
    assert errors == sorted(errors)
    assert errors[1] < 0.05
    assert errors[3] < 1


@pytest.mark.parametrize("scheme", ["int8", "int8-g32", "w8a8-dynamic", "int4-g32", "int4-g32-asym", "int8-tensor"])
def test_stored_codes_are_used_as_they_are(tmp_path: Path, scheme: str) -> None:
    write_rounded("llama", tmp_path / "out", all_linears(scheme))
    model = load_model(tmp_path / "out", quantize="stored")
    assert model.decoder == "native"
    # Half-precision group scales, and roundings of inputs that fall the other way after them, are all that differs.
    assert relative_error(logits(model), oracle(tmp_path / "out")) < 0.06


@pytest.mark.parametrize(("scheme", "layout"), [("nf4-g32", "bnb-nf4"), ("fp8", "compressed-tensors")])
def test_codes_of_other_kinds_are_rounded_to_8_bits(tmp_path: Path, scheme: str, layout: str) -> None:
    write_rounded("llama", tmp_path / "out", all_linears(scheme), layout)
    model = load_model(tmp_path / "out", quantize="stored")
    assert model.decoder == "native"
    assert relative_error(logits(model), oracle(tmp_path / "out")) < 0.2


def test_an_int8_kv_pool_changes_logits_little(float_logits: torch.Tensor) -> None:
    model = load_model(tiny_checkpoint("llama"), quantize="none")
    assert relative_error(logits(model, torch.int8), float_logits) < 0.08


def test_a_model_without_codes_keeps_its_decoder_unless_asked() -> None:
    assert load_model(tiny_checkpoint("llama"), quantize="stored").decoder == "fused"


def test_rounding_what_cannot_run_natively_says_why() -> None:
    with pytest.raises(ConfigurationError, match="quantize is int8"):
        load_model(tiny_checkpoint("gpt2"), quantize="int8")
