"""What `--speculate` says: which proposers guess tokens, and where the draft model lies."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.errors import ConfigurationError
from foveal.engine.scheduling.speculation.statistics import PROPOSERS

__all__ = ["SpeculateOption"]

_DRAFT = "draft:"
_AUTO = ("grammar", "ngram")


@dataclass(frozen=True, slots=True)
class SpeculateOption:
    proposers: tuple[str, ...]
    """In the order in which they are asked."""
    draft_path: str | None = None

    @classmethod
    def parse(cls, text: str) -> SpeculateOption:
        """`ngram`, `grammar`, `draft:PATH`, `auto` (grammar and ngram), or several with commas between them.

        Raises ConfigurationError.
        """
        names: set[str] = set()
        path = None
        for part in text.split(","):
            word = part.strip()
            if word.startswith(_DRAFT) and len(word) > len(_DRAFT):
                if path is not None:
                    raise ConfigurationError(f"--speculate {text!r} names two draft models; give one")
                path = word.removeprefix(_DRAFT)
                names.add("draft")
            elif word == "auto":
                names |= set(_AUTO)
            elif word in _AUTO:
                names.add(word)
            else:
                raise ConfigurationError(
                    f"--speculate has {word!r}; it must be ngram, grammar, draft:PATH, auto, or several with commas "
                    "between them"
                )
        return cls(tuple(name for name in PROPOSERS if name in names), path)
