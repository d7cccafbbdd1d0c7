"""Collect the deltas of a stream into finished choices."""

from __future__ import annotations

from foveal.engine.outputs import (
    ChoiceDelta,
    CompletionOutput,
    RequestMetrics,
    RequestOutput,
    TokenLogprob,
    Usage,
)

__all__ = ["ChoiceCollector"]


class ChoiceCollector:
    """For callers that want the whole answer: the offline API and non-streaming responses."""

    def __init__(self, num_choices: int) -> None:
        self._deltas: list[list[ChoiceDelta]] = [[] for _ in range(num_choices)]
        self.usage = Usage(prompt_tokens=0)
        self.metrics = RequestMetrics()

    def add(self, output: RequestOutput) -> None:
        for delta in output.deltas:
            self._deltas[delta.index].append(delta)
        self.usage = output.usage
        self.metrics = output.metrics

    def outputs(self) -> tuple[CompletionOutput, ...]:
        return tuple(_merge(index, deltas) for index, deltas in enumerate(self._deltas))


def _merge(index: int, deltas: list[ChoiceDelta]) -> CompletionOutput:
    logprobs: list[TokenLogprob] = [p for delta in deltas for p in delta.logprobs or ()]
    wanted = any(delta.logprobs is not None for delta in deltas)
    last = deltas[-1] if deltas else None
    return CompletionOutput(
        index=index,
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(t for delta in deltas for t in delta.token_ids),
        finish_reason=last.finish_reason if last else None,
        stop_reason=last.stop_reason if last else None,
        logprobs=tuple(logprobs) if wanted else None,
    )
