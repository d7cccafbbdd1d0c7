"""Calibration: the design stays within the engine's limits, and a whole run on a tiny model gives a usable file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError
from foveal.engine.calibration.calibrate import calibrate
from foveal.engine.calibration.design import DesignLimits, decoder_design
from foveal.engine.config import EngineConfig
from foveal.planning.latency.latency_file import load_calibration, save_calibration
from support.tiny_checkpoints import build_tiny_checkpoint

LIMITS = st.builds(
    DesignLimits,
    tokens=st.integers(1, 2048),
    seqs=st.integers(1, 256),
    context=st.integers(2, 8192),
    kv_tokens=st.integers(1, 100_000),
)


@pytest.fixture(autouse=True, scope="module")
def _denormals_as_before():
    """The engine flushes them to zero for its whole process, which other tests' strategies must not see."""
    yield
    torch.set_flush_denormal(False)


@settings(deadline=None)
@given(LIMITS)
def test_every_point_of_the_design_fits_the_engine(limits: DesignLimits) -> None:
    assert all(point.fits(limits) for point in decoder_design(limits))


def test_held_out_points_are_none_of_the_fitted_ones() -> None:
    design = decoder_design(DesignLimits(tokens=512, seqs=64, context=4096, kv_tokens=50_000))
    fitted = {point.rows for point in design if not point.held_out}
    held_out = [point for point in design if point.held_out]
    assert len(held_out) >= 10
    assert not fitted & {point.rows for point in held_out}
    kinds = {(any(n == 1 for _, n, _ in p.rows), any(n > 1 for _, n, _ in p.rows)) for p in held_out}
    assert kinds == {(True, False), (False, True), (True, True)}


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "llama"])
def test_a_calibration_of_a_tiny_model_can_be_saved_and_found(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = EngineConfig(
        model=str(build_tiny_checkpoint(name, tmp_path / "model")),
        max_num_seqs=4,
        max_num_batched_tokens=32,
        num_kv_blocks=200,
        num_threads=1,
        warmup=False,
    )
    seen: list[str] = []
    found = calibrate(config, rounds=3, budget_s=0.0, on_progress=lambda what, *_: seen.append(what))
    assert found.rounds == 3
    assert (found.model.vision is not None) == (name != "llama")
    assert found.model.decode_s(1, 10) > 0
    assert "decode 1 x 32" in seen
    save_calibration(found, tmp_path)
    again = load_calibration(found.key, tmp_path)
    assert again is not None
    assert again.model == found.model


def test_fewer_than_three_rounds_are_refused_before_the_model_loads() -> None:
    with pytest.raises(ConfigurationError, match="--rounds"):
        calibrate(EngineConfig(model="/nowhere"), rounds=2)
