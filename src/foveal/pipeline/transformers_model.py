"""EvaluatedModel over a loaded checkpoint: what is evaluated is what the engine serves."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from foveal.artifacts.model_files import source_digest, weight_bytes
from foveal.evaluation.metrics.perplexity import TextWindow
from foveal.evaluation.model import ModelFacts, OnProgress, Prompt, Response, Running
from foveal.kernels.native.extension import native_kernels
from foveal.models.language_model import TransformersModel
from foveal.models.loading import load_processor
from foveal.models.run_formats import RunFormats
from foveal.pipeline.prompt_preparation import batches_of_groups, prepare_prompt
from foveal.pipeline.running_cost import measure_running
from foveal.pipeline.text_scoring import WindowScorer
from foveal.pipeline.verified_decoding import VerifiedDecoder

__all__ = ["TransformersEvaluatedModel"]

_AS_SERVED = RunFormats()

PROMPTS_AT_ONCE = 48
"""About 48 questions behind 4 pictures are 1,100 tokens: large enough products, small enough activations."""


class TransformersEvaluatedModel:
    """See EvaluatedModel. Any family that `load_model` accepts, quantised or not."""

    def __init__(self, directory: Path, formats: RunFormats = _AS_SERVED) -> None:
        """Raises ModelLoadError, the ArtifactErrors of a directory without a model, and ConfigurationError where `formats`
        do not fit the model."""
        self._directory, self._formats = directory, formats
        digest = source_digest(directory)
        self._model = formats.load(directory)
        kv_format = formats.kv_format(self._model)
        self._processor = load_processor(directory)
        self._decoder = VerifiedDecoder(self._model, kv_format)
        self.facts = ModelFacts(
            name=directory.resolve().name,
            digest=digest,
            size_bytes=weight_bytes(directory),
            supports_images=self._model.spec.supports_images,
            vocab_size=self._model.spec.vocab_size,
            machine=f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}",
            run_as=_run_as(self._model, formats, kv_format),
        )

    def respond(
        self, prompts: Sequence[Prompt], *, max_tokens: int, logits: bool = False, progress: OnProgress | None = None
    ) -> list[Response]:
        """See EvaluatedModel. Neighbouring prompts with one picture object share its encoding."""
        responses: list[Response | None] = [None] * len(prompts)
        eos = self._model.spec.eos_token_ids
        for batch in batches_of_groups(prompts, PROMPTS_AT_ONCE):
            groups = [[prepare_prompt(self._processor, prompts[i], eos) for i in group] for group in batch]
            completed = self._decoder.complete(groups, max_tokens=max_tokens, keep_logits=logits)
            for group, completions in zip(batch, completed, strict=True):
                for index, completion in zip(group, completions, strict=True):
                    text = self._processor.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
                    kept = None if completion.logits is None else completion.logits.cpu().numpy()
                    responses[index] = Response(text.strip(), tuple(completion.top1), kept)
            if progress is not None:
                progress(sum(map(len, batch)))
        return [response for response in responses if response is not None]

    def tokenize(self, text: str) -> list[int]:
        """See EvaluatedModel."""
        return list(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def log_likelihoods(
        self, token_ids: Sequence[int], windows: Sequence[TextWindow], *, progress: OnProgress | None = None
    ) -> list[float]:
        """See EvaluatedModel. Models whose tokenizer begins texts with a token get it before every window."""
        bare, usual = self.tokenize("a"), self._processor.tokenize("a")
        prefix = usual[: len(usual) - len(bare)] if usual[-len(bare) :] == bare else ()
        scorer = WindowScorer(self._model, prefix, kv_format=self._formats.kv_format(self._model))
        scores = []
        for window in windows:
            scores.append(scorer.score(token_ids, window))
            if progress is not None:
                progress(1)
        return scores

    def measure_running(self) -> Running:
        """See EvaluatedModel."""
        return measure_running(self._directory, self._formats)


def _run_as(model: TransformersModel, formats: RunFormats, kv_format: torch.dtype) -> str:
    """Such as "native int8 (avx512), KV int8"."""
    kernels = native_kernels()
    if model.native is None or kernels is None:
        return f"{model.decoder} {_name(model.dtype)}, KV {_name(kv_format)}"
    weights = {"stored": "stored codes", "none": _name(model.dtype)}.get(formats.load_mode, formats.load_mode)
    return f"native {weights} ({kernels.instruction_set()}), KV {_name(kv_format)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
