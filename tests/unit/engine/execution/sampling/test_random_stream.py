"""Keyed random numbers: pinned values, and statistics."""

from __future__ import annotations

import numpy as np

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.random_stream import TokenNoise, draw_key, stream_seed

KEY = (3860511351, 3036371597)
UNIFORMS = [0.8010766085935757, 0.04785419499967247, 0.5680176824098453]


def uniforms(num_draws: int, num_ids: int) -> np.ndarray:
    keys = [draw_key(0, 0, position) for position in range(num_draws)]
    ids = np.tile(np.arange(num_ids), num_draws)
    return TokenNoise(num_ids).uniform(keys, np.full(num_draws, num_ids), ids).reshape(num_draws, num_ids)


def test_a_seed_means_the_same_numbers_in_every_release() -> None:
    assert draw_key(1, 2, 3) == KEY
    noise = TokenNoise(50_000)
    ids = np.array([0, 1, 49_999])
    assert noise.uniform([KEY], np.array([3]), ids).tolist() == UNIFORMS


def test_numbers_are_uniform_within_a_draw_and_across_draws() -> None:
    u = uniforms(200, 500)
    for bins in (u.ravel(), u[:, 7], u[3]):
        observed = np.histogram(bins, bins=10, range=(0, 1))[0]
        expected = len(bins) / 10
        assert ((observed - expected) ** 2 / expected).sum() < 34  # chi-square, 9 degrees of freedom: p < 1e-4
    assert u.min() > 0.0
    assert u.max() < 1.0


def test_draws_and_tokens_are_uncorrelated() -> None:
    u = uniforms(300, 300) - 0.5
    for a, b in ((u[:-1], u[1:]), (u[:, :-1], u[:, 1:]), (u, u.T)):
        off_diagonal = a.ravel() * b.ravel() if a is not u else (a * b)[~np.eye(len(u), dtype=bool)]
        correlation = off_diagonal.mean() * 12
        assert abs(correlation) < 5 / np.sqrt(off_diagonal.size)


def test_gumbel_noise_has_the_moments_of_its_distribution() -> None:
    keys = [draw_key(9, 1, 1)]
    noise = TokenNoise(100_000).gumbel(keys, np.array([100_000]), np.arange(100_000))
    assert abs(noise.mean() - 0.5772) < 0.02
    assert abs(noise.var() - np.pi**2 / 6) < 0.04


def test_an_unseeded_request_gets_a_seed_of_its_own() -> None:
    assert stream_seed(SamplingParams(seed=-5)) == -5
    assert len({stream_seed(SamplingParams()) for _ in range(10)}) == 10
