"""Put the proposers together that `--speculate` asks for."""

from __future__ import annotations

import json
from pathlib import Path

from foveal.core.clock import Clock
from foveal.core.errors import ConfigurationError
from foveal.engine.config import EngineConfig
from foveal.engine.execution.proposers.base import Proposer
from foveal.engine.execution.proposers.draft_model import DraftModelProposer
from foveal.engine.execution.proposers.draft_vocabulary import DraftVocabulary
from foveal.engine.execution.proposers.grammar import GrammarProposer
from foveal.engine.execution.proposers.ngram import NgramProposer
from foveal.engine.execution.runner import Runner
from foveal.engine.execution.sampler import Sampler
from foveal.engine.execution.speculator import Speculator
from foveal.engine.speculate_option import SpeculateOption
from foveal.models.base import LanguageModel
from foveal.models.run_formats import RunFormats

__all__ = ["build_speculator", "load_draft"]

DRAFT_POOL_BYTES = 256 << 20
"""Most that the draft's KV takes."""


def load_draft(config: EngineConfig, formats: RunFormats) -> LanguageModel | None:
    """The draft model that `config` names, loaded as the target is.

    Raises ModelLoadError, or ConfigurationError if its tokenizer is another one.
    """
    option = None if config.speculate is None else SpeculateOption.parse(config.speculate)
    if option is None or option.draft_path is None:
        return None
    _check_tokenizers(config.model, option.draft_path)
    return formats.load(option.draft_path)


def build_speculator(
    config: EngineConfig,
    runner: Runner,
    sampler: Sampler,
    clock: Clock,
    *,
    context_limit: int,
    draft: LanguageModel | None = None,
) -> Speculator | None:
    """None without `--speculate`. Raises ConfigurationError if the draft does not fit the target."""
    if config.speculate is None:
        return None
    proposers: list[Proposer] = []
    for name in SpeculateOption.parse(config.speculate).proposers:
        if name == "grammar":
            proposers.append(GrammarProposer())
        elif name == "ngram":
            proposers.append(NgramProposer())
        elif draft is not None:
            proposers.append(_draft_proposer(config, runner, sampler, draft, context_limit))
        else:
            raise ConfigurationError("--speculate names a draft model that was not loaded")
    return Speculator(
        proposers,
        clock,
        most_tokens=config.speculate_tokens,
        context_limit=context_limit,
        adaptive=config.speculate_adaptive,
    )


def _draft_proposer(
    config: EngineConfig, runner: Runner, sampler: Sampler, draft: LanguageModel, context_limit: int
) -> DraftModelProposer:
    target = runner.model.spec
    if draft.spec.vocab_size > target.vocab_size:
        raise ConfigurationError(
            f"the draft model has {draft.spec.vocab_size:,} tokens and the target {target.vocab_size:,}; use a draft that "
            "shares the target's tokenizer"
        )
    if draft.spec.supports_images or (target.supports_images and draft.spec.hidden_size != target.hidden_size):
        raise ConfigurationError(
            f"the draft model must be text-only and take the target's image features, which are {target.hidden_size} wide; "
            f"it is {'a vision model' if draft.spec.supports_images else f'{draft.spec.hidden_size} wide'}. "
            "Use a draft that was made for this target, or --speculate ngram"
        )
    token_bytes = draft.spec.kv_bytes_per_token(draft.dtype.itemsize)
    pool_tokens = min(config.max_num_seqs * context_limit, DRAFT_POOL_BYTES // token_bytes)
    vocabulary = DraftVocabulary(
        draft,
        target.vocab_size,
        size=config.draft_vocabulary,
        always=(*target.eos_token_ids, *draft.spec.eos_token_ids),
    )
    return DraftModelProposer(draft, vocabulary, sampler, runner.cached_feature, pool_tokens=pool_tokens)


def _check_tokenizers(target: str, draft: str) -> None:
    """Ids must mean the same. Only where both directories hold a tokenizer.json."""
    vocabularies = []
    for directory in (target, draft):
        path = Path(directory).expanduser() / "tokenizer.json"
        if not path.is_file():
            return
        vocabularies.append(json.loads(path.read_text())["model"].get("vocab"))
    if vocabularies[0] != vocabularies[1]:
        raise ConfigurationError(
            f"the tokenizers of {target} and of the draft {draft} differ; use a draft that shares the target's tokenizer"
        )
