"""Measure what quantising each decision group costs the answers: round one group, ask, put it back."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from foveal.compression.answer_probe import AnswerProbe
from foveal.compression.asked_pictures import AskedPicture, digest_of
from foveal.compression.components import Component
from foveal.compression.groups import DecisionGroup, ModelLayout, fitting, layout_of
from foveal.compression.sensitivity_table import Measurement, SensitivityTable, damage_of
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.activations import fake_quantise
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import LinearScheme, parse_linear
from foveal.models.language_model import TransformersModel
from foveal.models.processing.processor import Processor

__all__ = ["DEFAULT_CANDIDATES", "OnMeasured", "measure_sensitivity", "rounded"]

DEFAULT_CANDIDATES: Mapping[Component, tuple[str, ...]] = {
    "vision": ("int4-g64", "int8"),
    "projector": ("int8",),
    "embedding": ("int8",),
    "attention": ("int4-g32-asym", "int8"),
    "ffn": ("int4-g32-asym", "int8"),
    "head": ("int8",),
}
"""Scheme names tried per component. Keeping a group is always possible and needs no measurement."""

OnMeasured = Callable[[int, int, str], None]
"""(measurements done, measurements in all, name of the group)."""

_VERSION = 2
"""Raised when the same questions would measure something else, so that tables of older code are not read."""


def measure_sensitivity(
    model: TransformersModel,
    processor: Processor,
    asked: Sequence[AskedPicture],
    *,
    source_digest: str,
    candidates: Mapping[Component, Sequence[str]] = DEFAULT_CANDIDATES,
    layout: ModelLayout | None = None,
    progress: OnMeasured | None = None,
    cache_dir: Path | None = None,
) -> SensitivityTable:
    """Each candidate scheme on each group alone, rounded to nearest, against the original's answers.

    Weights are changed and put back in place; afterwards the model is what it was. Rounding to nearest is an upper bound
    in practice: GPTQ and AWQ lose less, and rank groups the same way. With `cache_dir`, a table measured before on the
    same model, pictures and candidates is read instead, and an interrupted one is continued. Cost: about half a forward
    pass over all questions per measurement. Raises ConfigurationError for an unreadable scheme, or one that needs
    calibrated inputs.
    """
    schemes = {part: [_readable(name) for name in names] for part, names in candidates.items()}
    samples = digest_of(asked)
    key = json.dumps([_VERSION, source_digest, samples, {part: list(names) for part, names in candidates.items()}])
    path = cache_dir / f"sensitivity-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json" if cache_dir else None
    if (known := _read(path)) is not None:
        return known
    unfinished = None if path is None else path.with_suffix(".unfinished.json")
    before = _read(unfinished)
    started = time.monotonic()
    layout = layout or layout_of(model.hf_model)
    probe = AnswerProbe(model, processor, asked)
    table = before or SensitivityTable(
        source_digest=source_digest,
        samples_digest=samples,
        pairs=sum(len(one.questions) for one in asked),
        answer_tokens=probe.answer_tokens,
        base_dependence=probe.original.dependence,
        measurements=(),
        seconds=0.0,
    )
    spent = table.seconds
    plan = [(group, scheme) for group in layout.groups for scheme in schemes.get(group.component, ())]
    for number, (group, scheme) in enumerate(plan):
        if progress is not None:
            progress(number, len(plan), group.name)
        if number < len(table.measurements):
            continue  # done before an interruption
        measured = _measure(model, probe, group, scheme)
        seconds = round(spent + time.monotonic() - started, 2)
        table = replace(table, measurements=(*table.measurements, measured), seconds=seconds)
        _write(unfinished, table)
    if progress is not None:
        progress(len(plan), len(plan), "")
    _write(path, table)
    if unfinished is not None:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return table


def _read(path: Path | None) -> SensitivityTable | None:
    """None where there is no table, or one that cannot be read: it is measured again then."""
    try:
        return None if path is None else SensitivityTable.load(path)
    except ConfigurationError:
        return None


def _write(path: Path | None, table: SensitivityTable) -> None:
    """A cache that cannot be written costs time, not the result."""
    with suppress(OSError):
        if path is not None:
            table.save(path)


def _measure(model: TransformersModel, probe: AnswerProbe, group: DecisionGroup, scheme: LinearScheme) -> Measurement:
    at = time.monotonic()
    with rounded(model, group, scheme):
        answers = probe.ask(group.component, group.layer)
    return Measurement(
        group=group.name,
        component=group.component,
        layer=group.layer,
        scheme=scheme.name,
        kl=answers.kl,
        text_kl=answers.text_kl,
        dependence=answers.dependence,
        damage=damage_of(answers.kl, answers.text_kl, answers.dependence, probe.original.dependence),
        seconds=round(time.monotonic() - at, 4),
    )


@contextmanager
def rounded(model: TransformersModel, group: DecisionGroup, scheme: LinearScheme) -> Iterator[None]:
    """While active, the group's weights are rounded to nearest and, if the scheme says so, its inputs per token."""
    modules = [model.hf_model.get_submodule(name) for name in group.modules[: len(group.shapes)]]
    kept = [module.weight.detach().clone() for module in modules]
    with torch.no_grad(), ExitStack() as hooks:
        for module, shape in zip(modules, group.shapes, strict=True):
            weight = module.weight.data
            transposed = tuple(weight.shape) != shape or hasattr(module, "nf")  # GPT-2 keeps [in, out]
            stored = quantise(weight.t() if transposed else weight, fitting(scheme.weight, shape[1]))
            values = stored.dequantise(weight.dtype)
            weight.copy_(values.t() if transposed else values)
            if scheme.activation is not None and hasattr(module, "in_features"):
                hooks.callback(module.register_forward_pre_hook(_input_rounding(scheme)).remove)
        try:
            yield
        finally:
            for module, weight in zip(modules, kept, strict=True):
                module.weight.data.copy_(weight)


def _input_rounding(scheme: LinearScheme) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], tuple[torch.Tensor]]:
    activation = scheme.activation
    assert activation is not None
    return lambda _, inputs: (fake_quantise(inputs[0], activation),)


def _readable(name: str) -> LinearScheme:
    scheme = parse_linear(name)
    if scheme.activation is not None and not scheme.activation.dynamic:
        raise ConfigurationError(
            f"candidate {name} needs calibrated input ranges, which a sensitivity measurement does not have. Use the "
            "dynamic form."
        )
    return scheme
