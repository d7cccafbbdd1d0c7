"""How much an image token counts beside a text token when a linear is rounded.

A prompt of a vision-language model is mostly image tokens, and the answer depends on both kinds. Hessian and AWQ loss
sum over tokens, so the larger crowd wins whether or not the answer hangs on it. MBQ (arXiv 2412.19509) weighs the
modalities by gradients; here the weight is chosen by what matters in the end: the KL divergence of the tokens that
answer a question about a picture, and of those of texts, each beside what weight 1 makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from foveal.compression.block_compressor import LinearPlan, compress_block, put_in_place
from foveal.compression.capture import collect_statistics
from foveal.compression.input_statistics import InputStatistics
from foveal.compression.model_walk import ModelWalk
from foveal.compression.prefill import PrefillBatch

__all__ = ["IMAGE_WEIGHTS", "find_image_weight", "probe_positions"]

IMAGE_WEIGHTS = (1.0, 0.1, 0.3, 3.0)
"""Candidates; text tokens count 1. The first is kept unless another is better by `_MARGIN`."""
_MARGIN = 0.02
_NUM_PROBES = 3


def probe_positions(plans: Sequence[Sequence[LinearPlan]]) -> list[int]:
    """At most three layers, evenly spread, among those that GPTQ or AWQ will round."""
    possible = [at for at, layer in enumerate(plans) if any(plan.rule.method in ("gptq", "awq") for plan in layer)]
    if len(possible) <= _NUM_PROBES:
        return possible
    step = (len(possible) - 1) / (_NUM_PROBES - 1)
    return [possible[round(number * step)] for number in range(_NUM_PROBES)]


def find_image_weight(
    walk: ModelWalk,
    plans: Sequence[Sequence[LinearPlan]],
    stored_dtype: torch.dtype,
    *,
    candidates: Sequence[float] = IMAGE_WEIGHTS,
) -> tuple[float, dict[float, float]]:
    """(weight, candidate -> loss) from rounding a few layers of the decoder on trial.

    `plans` holds one list per decoder layer. KL is measured on the batches held out, between next-token distributions of
    the model as it came and with the trial layers rounded: once over answers about pictures, once over texts. The loss is
    the mean of the two, each as a multiple of what the first candidate makes of it: texts have a hundred times the KL of
    answers of one word, and would decide alone. The model is left as it was.
    """
    probes = probe_positions(plans)
    if not probes or not any(bool(batch.image_mask.any()) for batch in walk.batches):
        return 1.0, {}
    steps = walk.steps()
    reference = _answer_logits(walk, steps)
    image, text = _statistics(walk, steps, plans, probes)
    about_pictures = torch.cat([_about_pictures(batch) for batch in walk.batches if batch.held_out])
    divergences = {}
    for weight in candidates:
        blocks = [walk.decoder[at] for at in probes]
        kept = [{name: value.clone() for name, value in block.module.state_dict().items()} for block in blocks]
        handles = []
        for at, block in zip(probes, blocks, strict=True):
            mixed = _mixed(image[at], text[at], weight)
            result = compress_block(block, plans[at], mixed, stored_dtype, source_bytes=4)
            handles += put_in_place(walk.model.hf_model, result)
        divergences[weight] = _divergence(reference, _answer_logits(walk, steps), about_pictures)
        for handle in handles:
            handle.remove()
        for block, state in zip(blocks, kept, strict=True):
            block.module.load_state_dict(state)
    first = candidates[0]
    losses = {weight: _relative(found, divergences[first]) for weight, found in divergences.items()}
    best = min(losses, key=lambda weight: losses[weight])
    return (best if losses[best] < losses[first] * (1 - _MARGIN) else first), losses


def _statistics(
    walk: ModelWalk, steps: Sequence, plans: Sequence[Sequence[LinearPlan]], probes: Sequence[int]
) -> tuple[dict[int, dict[str, InputStatistics]], dict[int, dict[str, InputStatistics]]]:
    """Per probed layer, statistics of image tokens alone and of text tokens alone, with the weights as they came."""
    runs = walk.capture_decoder(steps)
    image, text = {}, {}
    for position, block in enumerate(walk.decoder[: probes[-1] + 1]):
        if position in probes:
            names = [plan.name for plan in plans[position] if plan.rule.scheme is not None]
            for target, weights in ((image, (1.0, 0.0)), (text, (0.0, 1.0))):
                target[position] = collect_statistics(
                    block,
                    position,
                    runs,
                    names=names,
                    weights=walk.decoder_weights(*weights),
                    held_out=lambda batch: walk.batches[batch].held_out,
                )
        for run in runs:
            run.hidden = run.call(position, block)
    return image, text


def _mixed(
    image: Mapping[str, InputStatistics], text: Mapping[str, InputStatistics], weight: float
) -> dict[str, InputStatistics]:
    """Linears that shared their statistics share the mixture."""
    made: dict[int, InputStatistics] = {}
    for name, statistics in image.items():
        if id(statistics) not in made:
            made[id(statistics)] = InputStatistics.mixed(statistics, text[name], weight)
    return {name: made[id(statistics)] for name, statistics in image.items()}


def _answer_logits(walk: ModelWalk, steps: Sequence) -> torch.Tensor:
    """Log-probabilities [answer tokens of held-out samples, vocabulary]."""
    parts = []
    for batch, step in zip(walk.batches, steps, strict=True):
        if batch.held_out:
            logits = walk.model.compute_logits(walk.forward(step)[batch.answer_mask])
            parts.append(torch.log_softmax(logits, -1))
    return torch.cat(parts)


def _about_pictures(batch: PrefillBatch) -> torch.Tensor:
    """Per answer token of a batch, whether its sample shows a picture."""
    flags = [torch.full((int(sample.answer_mask.sum()),), bool(sample.image_mask.any())) for sample in batch.samples]
    return torch.cat(flags)


def _divergence(reference: torch.Tensor, other: torch.Tensor, about_pictures: torch.Tensor) -> list[float]:
    """Mean KL in nats per token of answers about pictures and of texts; one number where there is one kind only."""
    found = (reference.exp() * (reference - other)).sum(-1)
    return [float(found[kind].mean()) for kind in (about_pictures, ~about_pictures) if bool(kind.any())]


def _relative(found: Sequence[float], first: Sequence[float]) -> float:
    return sum(value / max(unit, 1e-12) for value, unit in zip(found, first, strict=True)) / len(first)
