"""One pass over rows of logits for all that sampling needs of a whole vocabulary: native, or row by row in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foveal.kernels.native.extension import native_kernels

__all__ = ["LogitsScan", "scan_logits", "scan_logits_in_numpy"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LogitsScan:
    """R rows."""

    ids: npt.NDArray[np.int32]
    """[R, room], ascending; beyond a row's count without meaning."""
    counts: npt.NDArray[np.int32]
    """[R] how many ids there are; more than `room` if they did not find room."""
    largest: Floats
    """[R]"""
    totals: Floats
    """[R] sum of exp((logit - largest) * factor) where asked for, else without meaning."""


def scan_logits(
    logits: Floats, factors: Floats, windows: Floats, weigh: npt.NDArray[np.bool_], room: int, threads: int
) -> LogitsScan:
    """Ids of the logits [R, vocab] that are at least largest - windows [R] of their row, and where `weigh` [R] the weight
    of all, with one over the temperature as factors [R]. Each row's result depends on that row alone, to the last bit."""
    kernels = native_kernels()
    if kernels is None or not hasattr(kernels, "scan_logits"):
        return scan_logits_in_numpy(logits, factors, windows, weigh, room)
    scan = _empty(len(logits), room)
    kernels.scan_logits(
        logits,
        np.ascontiguousarray(factors),
        np.ascontiguousarray(windows),
        weigh.astype(np.uint8),
        scan.ids,
        scan.counts,
        scan.largest,
        scan.totals,
        max(1, threads),
    )
    return scan


def scan_logits_in_numpy(
    logits: Floats, factors: Floats, windows: Floats, weigh: npt.NDArray[np.bool_], room: int
) -> LogitsScan:
    """The reference. Row by row with one buffer, so that a row stays in the processor's cache."""
    scan = _empty(len(logits), room)
    buffer = np.empty(logits.shape[1], dtype=np.float32)
    for r, row in enumerate(logits):
        largest = scan.largest[r] = row.max()
        found = (row >= largest - windows[r]).nonzero()[0]
        scan.counts[r] = len(found)
        scan.ids[r, : min(room, len(found))] = found[:room]
        if weigh[r]:
            np.subtract(row, largest, out=buffer)
            np.multiply(buffer, factors[r], out=buffer)
            np.exp(buffer, out=buffer)
            scan.totals[r] = buffer.sum()
    return scan


def _empty(rows: int, room: int) -> LogitsScan:
    return LogitsScan(
        np.empty((rows, room), dtype=np.int32),
        np.zeros(rows, dtype=np.int32),
        np.zeros(rows, dtype=np.float32),
        np.zeros(rows, dtype=np.float32),
    )
