"""The figures of an evaluation as text, one per row."""

from __future__ import annotations

from collections.abc import Iterator

from foveal.artifacts.passport_rows import Rows, size_text
from foveal.evaluation.evaluation_result import Evaluation

__all__ = ["figure_rows"]

_PROBES = {"swap": "picture swapped", "blank": "picture blanked", "shuffled": "picture shuffled"}


def figure_rows(*evaluations: Evaluation) -> Rows:
    """One column per evaluation, named after its model; "-" where one was not measured."""
    columns: list[dict[str, str]] = [dict(_figures(evaluation)) for evaluation in evaluations]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    rows = tuple((label, *(column.get(label, "-") for column in columns)) for label in labels)
    return Rows(("figure", *(f">{evaluation.model.name}" for evaluation in evaluations)), rows)


def _figures(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    if evaluation.run_as:
        yield "run as", evaluation.run_as
    if evaluation.size_bytes is not None:
        yield "weights on disk", size_text(evaluation.size_bytes)
    if evaluation.perplexity is not None:
        yield (
            f"perplexity of English text ({evaluation.perplexity.tokens:,} tokens)",
            _number(evaluation.perplexity.value),
        )
    for task, result in sorted(evaluation.tasks.items()):
        yield f"{task} ({result.questions:,} questions)", f"{100 * result.accuracy:.1f} %"
    if evaluation.captions is not None:
        yield f"BLEU-4 of {evaluation.captions.items:,} captions", f"{evaluation.captions.bleu4:.1f}"
    if evaluation.agreement is not None:
        yield "greedy answers equal to the base's", f"{100 * evaluation.agreement.greedy_exact:.1f} %"
        yield "most likely token equal to the base's", f"{100 * evaluation.agreement.top1:.1f} %"
    if evaluation.kl is not None:
        yield (
            "KL from the base, mean (99th percentile), nats",
            f"{_number(evaluation.kl.mean)} ({_number(evaluation.kl.p99)})",
        )
    sight = evaluation.image_sensitivity
    if sight is not None:
        for probe, words in _PROBES.items():
            found = getattr(sight, probe)
            yield f"answers that change, {words}", f"{100 * found.answers:.1f} %"
            yield f"KL of the change, {words}, nats", _number(found.kl)
            if found.accuracy is not None:
                yield f"still right, {words}", f"{100 * found.accuracy:.1f} %"
        if sight.accuracy is not None:
            yield "right with the right picture", f"{100 * sight.accuracy:.1f} %"
    if evaluation.peak_memory_bytes is not None:
        yield "peak memory", size_text(evaluation.peak_memory_bytes)
    if evaluation.speed is not None:
        yield "encode one picture", f"{evaluation.speed.encode_ms:.1f} ms"
        yield "prefill", f"{evaluation.speed.prefill_tok_s:,.0f} tok/s"
        yield "decode", f"{evaluation.speed.decode_tok_s:,.1f} tok/s"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
