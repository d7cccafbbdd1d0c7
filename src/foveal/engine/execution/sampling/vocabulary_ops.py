"""The few operations that walk the whole vocabulary; everything else in the sampler handles a handful of numbers.

Logits stay on their device; what is found comes back as numpy arrays. On a CPU numpy does the walking too, because
torch's kernels are far slower there: one row of 49,152 fp32 on one Zen 5 core, numpy 2.4 against torch 2.13: argmax 7
against 129 us, the largest 1,024 values 83 against 780 us, full sort 0.23 against 5.4 ms, finding what exceeds a
threshold 18 against 150 us.

Each result is a function of its row alone, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

__all__ = [
    "Floats",
    "Ints",
    "argmax",
    "count_above",
    "kept",
    "largest_values",
    "maximum",
    "peak_probability",
    "select_rows",
    "tail_weights",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def argmax(x: torch.Tensor) -> list[int]:
    """Index of the largest element per row of x [rows, n]; the lowest index among equals."""
    if _walk_with_numpy(x):
        return [int(i) for i in x.numpy().argmax(axis=1)]
    return [int(i) for i in x.argmax(dim=1).tolist()]


def maximum(x: torch.Tensor) -> Floats:
    """The largest value per row of x [rows, n]; [rows]."""
    if _walk_with_numpy(x):
        return x.numpy().max(axis=1).astype(np.float64)
    return x.amax(dim=1).double().cpu().numpy()


def largest_values(x: torch.Tensor, k: int) -> Floats:
    """The k largest values per row of x [rows, n], largest first; [rows, k]."""
    n = x.shape[1]
    if not _walk_with_numpy(x):
        return x.topk(k, dim=1).values.double().cpu().numpy()
    values = x.numpy()
    if k < n:
        values = np.partition(values, n - k, axis=1)[:, n - k :]
    return np.sort(values, axis=1)[:, ::-1].astype(np.float64)


def kept(x: torch.Tensor, threshold: Floats) -> tuple[Ints, Ints, Floats]:
    """(row, column, value), [m] each and in row-major order, of all x[row, column] >= threshold[row]."""
    limits = threshold.astype(np.float32)[:, None]
    if _walk_with_numpy(x):
        array = x.numpy()
        flat = (array >= limits).reshape(-1).nonzero()[0]
        values = array.reshape(-1)[flat]
    else:
        found = (x >= torch.from_numpy(limits).to(x.device)).view(-1).nonzero()[:, 0]
        values = x.reshape(-1)[found].cpu().numpy()
        flat = found.cpu().numpy()
    rows, columns = np.divmod(flat, x.shape[1])
    return rows, columns, values.astype(np.float64)


def peak_probability(x: torch.Tensor) -> Floats:
    """The largest probability in softmax(x) per row of x [rows, n]; [rows]. exp(max) / it is the sum of all weights.

    softmax reduces each row on its own, unlike sum(), which splits a single row between threads.
    """
    return maximum(x.softmax(dim=1))


def tail_weights(row: torch.Tensor, threshold: float) -> Floats:
    """Running sum of exp(x - threshold) over the elements of row [n] below the threshold, 0 for the others; [n]."""
    limit = np.float32(threshold)
    if _walk_with_numpy(row):
        relative = row.numpy() - limit
        weights = np.exp(np.minimum(relative, np.float32(0.0)))
        weights[relative >= 0.0] = 0.0
        return weights.cumsum(dtype=np.float64)
    weights_there = torch.where(row < limit.item(), (row - limit.item()).exp(), 0.0)
    return weights_there.double().cumsum(dim=0).cpu().numpy()


def count_above(row: torch.Tensor, value: float) -> int:
    """How many elements of row [n] are greater than `value` (a float that holds the tensor's own fp32 value)."""
    if _walk_with_numpy(row):
        return int(np.count_nonzero(row.numpy() > np.float32(value)))
    return int((row > value).sum())


def select_rows(x: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
    """x[indices] for strictly ascending indices; x itself, not a copy, when they are all of its rows."""
    if len(indices) == x.shape[0]:
        return x
    return x.index_select(0, torch.tensor(indices, device=x.device))


def _walk_with_numpy(x: torch.Tensor) -> bool:
    return x.device.type == "cpu"
