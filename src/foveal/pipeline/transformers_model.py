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
from foveal.models.loading import load_model, load_processor
from foveal.models.precision import DTypeName
from foveal.pipeline.prompt_preparation import batches_of_groups, prepare_prompt
from foveal.pipeline.running_cost import measure_running
from foveal.pipeline.text_scoring import WindowScorer
from foveal.pipeline.verified_decoding import VerifiedDecoder

__all__ = ["TransformersEvaluatedModel"]

PROMPTS_AT_ONCE = 48
"""About 48 questions behind 4 pictures are 1,100 tokens: large enough products, small enough activations."""


class TransformersEvaluatedModel:
    """See EvaluatedModel. Any family that `load_model` accepts, quantised or not."""

    def __init__(self, directory: Path, *, dtype: DTypeName = "auto") -> None:
        """Raises ModelLoadError and the ArtifactErrors of a directory without a model."""
        self._directory, self._dtype = directory, dtype
        digest = source_digest(directory)
        self._model = load_model(directory, dtype=dtype)
        self._processor = load_processor(directory)
        self._decoder = VerifiedDecoder(self._model)
        hf = self._model.hf_model
        self.facts = ModelFacts(
            name=directory.resolve().name,
            digest=digest,
            size_bytes=weight_bytes(directory),
            parameter_bytes=sum(p.numel() * p.element_size() for p in hf.parameters()),
            supports_images=self._model.spec.supports_images,
            vocab_size=self._model.spec.vocab_size,
            machine=f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}",
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
        scorer = WindowScorer(self._model, usual[: len(usual) - len(bare)] if usual[-len(bare) :] == bare else ())
        scores = []
        for window in windows:
            scores.append(scorer.score(token_ids, window))
            if progress is not None:
                progress(1)
        return scores

    def measure_running(self) -> Running:
        """See EvaluatedModel."""
        return measure_running(self._directory, dtype=self._dtype)
