"""Least squares without negative coefficients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["fit_nonnegative"]

Floats = npt.NDArray[np.float64]


def fit_nonnegative(features: Floats, seconds: Floats) -> Floats:
    """Coefficients [k] >= 0 that minimise the *relative* error of features [m, k] @ coefficients against seconds [m] > 0.

    Relative, because a step of 300 ms may be 10 ms off and one of 3 ms may not. Columns are scaled to equal size first.
    Source: Lawson and Hanson, Solving Least Squares Problems, ch. 23.
    """
    rows = features / seconds[:, None]
    scale = np.abs(rows).max(axis=0)
    used = scale > 0
    scaled = rows[:, used] / scale[used]
    found = np.zeros(features.shape[1])
    found[used] = _solve(scaled, np.ones(len(seconds))) / scale[used]
    return found


def _solve(a: Floats, b: Floats) -> Floats:
    count = a.shape[1]
    x: Floats = np.zeros(count)
    active = np.zeros(count, dtype=np.bool_)  # coefficients that are free to be positive
    tolerance = 1e-10 * len(b)
    for _ in range(10 * count):
        gradient = a.T @ (b - a @ x)
        gradient[active] = -np.inf
        if not (~active).any() or gradient.max() <= tolerance:
            break
        active[int(gradient.argmax())] = True
        while True:
            trial = np.zeros(count)
            trial[active] = np.linalg.lstsq(a[:, active], b, rcond=None)[0]
            blocked = active & (trial <= 0)
            if not blocked.any():
                x = trial
                break
            # Go as far towards the trial as no coefficient turns negative, and hold the one that would.
            step = float((x[blocked] / np.maximum(x[blocked] - trial[blocked], 1e-300)).min())
            x = np.maximum(0.0, x + step * (trial - x))
            active &= x > 1e-14
            if not active.any():
                break
    return x
