"""When a new request would get its first token at the earliest, as far as the model can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foveal.planning.latency.latency_model import LatencyModel
from foveal.planning.latency.step_work import StepWork

__all__ = ["FirstToken"]


class FirstToken:
    """A lower bound: that a seat or blocks get free later is not counted, since nobody knows how long answers get."""

    def __init__(self, model: LatencyModel, factor: Callable[[], float], step_target_s: float | None) -> None:
        """`factor` corrects predictions; `step_target_s` is what a step may take while requests decode."""
        self._model = model
        self._factor = factor
        self._step_target_s = step_target_s

    def predict_s(
        self, num_tokens: int, images: Sequence[int], decode_rows: int, decode_kv: int, budget_tokens: int
    ) -> float:
        """Seconds until `num_tokens` of prompts are computed and `images` encoded, beside `decode_rows` requests that
        attend to `decode_kv` positions, in steps of at most `budget_tokens`."""
        work = StepWork(tokens=decode_rows, samples=decode_rows, decode_kv=decode_kv)
        factor = self._factor()
        chunk = max(1, budget_tokens - decode_rows)
        if decode_rows and self._step_target_s is not None:
            chunk = max(1, self._model.largest_chunk(work, 0, chunk, self._step_target_s / factor))
        full, rest = divmod(num_tokens, chunk)
        seconds = full * self._model.decoder_s(work.with_row(0, chunk, 0))
        if rest:
            seconds += self._model.decoder_s(work.with_row(0, rest, 1))
        return factor * (seconds + self._model.encode_s(images))
