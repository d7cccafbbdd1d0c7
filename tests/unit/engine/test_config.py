"""A configuration that cannot work is refused before anything is loaded."""

from __future__ import annotations

import pytest
import torch

from foveal.core.errors import ConfigurationError
from foveal.core.model_spec import ModelSpec
from foveal.engine.config import EngineConfig
from foveal.engine.execution.kv_pool import blocks_that_fit

SPEC = ModelSpec("llama", 40, 40, 40, 128, 5120, 32000, 4096, (2,), 5120)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_num_seqs", 0),
        ("block_size", 0),
        ("max_num_batched_tokens", 0),
        ("max_model_len", 0),
        ("num_threads", 0),
        ("memory_utilization", 0.0),
        ("memory_utilization", 0.99),
        ("preprocess_workers", 0),
    ],
)
def test_a_value_out_of_range_names_its_flag(field: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=field):
        EngineConfig(model="m", **{field: value})  # type: ignore[arg-type]


def test_the_model_is_named_after_its_directory_unless_told_otherwise() -> None:
    assert EngineConfig(model="/models/foveal-demo/").model_name == "foveal-demo"
    assert EngineConfig(model="/models/x", served_model_name="mine").model_name == "mine"


def test_kv_bytes_of_the_13b_example_are_what_the_formula_gives() -> None:
    """Mission row P1: 40 layers, 40 heads of 128, 1,088 tokens, batch 8, FP16; the source drops the last factor 2."""
    assert SPEC.kv_bytes_per_token(2) * 1088 * 8 == 7_130_316_800


def test_the_pool_takes_its_share_of_memory_and_no_more_than_all_sequences_can_use() -> None:
    block = 16 * SPEC.kv_bytes_per_token(2)
    options = {"kv_dtype": torch.bfloat16, "block_size": 16, "max_model_len": 160, "memory_utilization": 0.5}
    assert blocks_that_fit(SPEC, max_num_seqs=64, free_bytes=100 * block, **options) == 50  # type: ignore[arg-type]
    assert blocks_that_fit(SPEC, max_num_seqs=2, free_bytes=1000 * block, **options) == 20  # type: ignore[arg-type]


def test_a_pool_too_small_for_one_sequence_says_which_length_would_fit() -> None:
    block = 16 * SPEC.kv_bytes_per_token(2)
    with pytest.raises(ConfigurationError, match="--max-model-len to at most 80"):
        blocks_that_fit(
            SPEC,
            kv_dtype=torch.bfloat16,
            block_size=16,
            max_num_seqs=1,
            max_model_len=160,
            memory_utilization=0.5,
            free_bytes=10 * block,
        )
