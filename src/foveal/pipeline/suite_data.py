"""Find the data of a suite: given by path, kept from before, or downloaded; what cannot be had is named, not skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from foveal.artifacts.pinned_wheel import PinnedSourceError, fetch
from foveal.core.errors import ConfigurationError
from foveal.evaluation.suite import Suite, SuiteSize
from foveal.evaluation.tasks.easy_vqa import EASY_VQA
from foveal.evaluation.text_corpus import evaluation_cache_dir, fetch_wiki_summaries

__all__ = ["AUTO", "NONE", "resolve_suite"]

AUTO, NONE = "auto", "none"


def resolve_suite(
    size: SuiteSize,
    *,
    seed: int = 0,
    easy_vqa: str = AUTO,
    text: str = AUTO,
    cache_dir: Path | None = None,
) -> Suite:
    """`easy_vqa` and `text` are a path, "auto" (the pinned package, downloaded once) or "none".

    A path that does not exist is a ConfigurationError; a download that fails leaves the part out and says so in
    `Suite.missing`.
    """
    cache = cache_dir or evaluation_cache_dir()
    missing: dict[str, str] = {}

    def find(part: str, wanted: str, download: Callable[[], Path]) -> Path | None:
        if wanted == NONE:
            missing[part] = "left out on demand"
            return None
        if wanted != AUTO:
            path = Path(wanted).expanduser()
            if not path.exists():
                raise ConfigurationError(f"there is no {path}. Correct the path, or give auto or none.")
            return path
        try:
            return download()
        except PinnedSourceError as error:
            missing[part] = f"it could not be downloaded: {str(error).splitlines()[0]}"
            return None

    questions = find("easy_vqa", easy_vqa, lambda: fetch(EASY_VQA, cache))
    passage = find("perplexity", text, lambda: fetch_wiki_summaries(cache))
    return Suite(size, seed, questions, passage, missing)
