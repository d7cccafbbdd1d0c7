"""One pass over logits: the native kernels and numpy tell the same, on every instruction set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.kernels.logits_scan import scan_logits, scan_logits_in_numpy
from foveal.kernels.native.extension import native_kernels

native = native_kernels()
SETS = ["numpy"] if native is None else list(native.available_instruction_sets())


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = None if native is None else native.instruction_set()
    yield
    if native is not None:
        native.use_instruction_set(before)


@pytest.mark.parametrize("instruction_set", SETS)
def test_a_row_longer_than_any_vocabulary_is_scanned_to_its_end(instruction_set: str) -> None:
    if native is not None:
        native.use_instruction_set(instruction_set)
    logits = np.random.default_rng(0).standard_normal((1, 600_001)).astype(np.float32)
    logits[0, -1] = 9.0
    ones = np.ones(1, dtype=np.float32)
    found = scan_logits(logits, ones, 6 * ones, np.ones(1, dtype=bool), 5000, 1)
    expected = scan_logits_in_numpy(logits, ones, 6 * ones, np.ones(1, dtype=bool), 5000)
    assert found.counts == expected.counts > 1
    assert (found.ids[0, : found.counts[0]] == expected.ids[0, : found.counts[0]]).all()
    np.testing.assert_allclose(found.totals, expected.totals, rtol=1e-4)


@pytest.mark.parametrize("instruction_set", SETS)
@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 5),
    st.sampled_from([1, 2, 15, 16, 17, 63, 64, 65, 200, 1031, 5000]),
    st.sampled_from([0.3, 1.0, 2.5]),
    st.floats(0.5, 20.0),
    st.sampled_from([4, 2000]),
    st.integers(1, 2),
    st.integers(0, 10_000),
)
def test_native_and_numpy_agree(
    instruction_set: str, rows: int, vocab: int, temperature: float, window: float, room: int, threads: int, seed: int
) -> None:
    if native is not None:
        native.use_instruction_set(instruction_set)
    rng = np.random.default_rng(seed)
    logits = (4.0 * rng.standard_normal((rows, vocab))).astype(np.float32)
    if seed % 3 == 0:
        logits[:, rng.integers(0, vocab, size=vocab // 2)] = -np.inf
    if seed % 5 == 0:  # as a grammar leaves it
        logits[:, : vocab // 2] = -np.inf
        logits[:, -1] = 1.0
    factors = np.full(rows, 1.0 / temperature, dtype=np.float32)
    windows = np.full(rows, window, dtype=np.float32)
    weigh = rng.random(rows) < 0.7
    found = scan_logits(logits, factors, windows, weigh, room, threads)
    expected = scan_logits_in_numpy(logits, factors, windows, weigh, room)
    assert (found.largest == expected.largest).all()
    if np.isfinite(expected.largest).all():
        assert (found.counts == expected.counts).all()
        np.testing.assert_allclose(found.totals[weigh], expected.totals[weigh], rtol=1e-5)
        for r in range(rows):
            count = min(room, expected.counts[r])
            assert (found.ids[r, :count] == expected.ids[r, :count]).all()
