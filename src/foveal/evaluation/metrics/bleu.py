"""BLEU: modified n-gram precision with a brevity penalty, over a whole corpus.

Source: Papineni, Roukos, Ward, Zhu, "BLEU: a method for automatic evaluation of machine translation", ACL 2002.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

__all__ = ["Smoothing", "bleu", "words"]

Smoothing = Literal["none", "add-one", "exponential"]
_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Lower-case words and single punctuation marks."""
    return _WORD.findall(text.lower())


def bleu(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    *,
    order: int = 4,
    smoothing: Smoothing = "none",
) -> float:
    """Corpus BLEU, 0..100: `candidates[i]` are tokens, `references[i]` one or more token lists for it.

    Counts are summed over the corpus before they are divided, so the score is not a mean of sentence scores. Where an
    order has no match the score is 0, unless smoothed: "add-one" counts one more match and one more n-gram for every
    order above 1 (Lin and Och 2004), "exponential" gives the k-th order without a match 1 / 2^k matches (NIST mteval 13).
    """
    if not candidates or len(candidates) != len(references) or not all(references):
        raise ValueError(f"{len(candidates)} candidates and {len(references)} reference sets; one set each is needed")
    matches, totals = [0] * order, [0] * order
    candidate_length = reference_length = 0
    for candidate, accepted in zip(candidates, references, strict=True):
        candidate_length += len(candidate)
        reference_length += _closest_length(len(candidate), [len(reference) for reference in accepted])
        for n in range(1, order + 1):
            found = _ngrams(candidate, n)
            allowed: Counter[tuple[str, ...]] = Counter()
            for reference in accepted:
                allowed |= _ngrams(reference, n)
            matches[n - 1] += (found & allowed).total()
            totals[n - 1] += found.total()
    precisions = _precisions(matches, totals, smoothing)
    if min(precisions) <= 0:
        return 0.0
    penalty = min(0.0, 1 - reference_length / candidate_length)
    return 100 * math.exp(penalty + sum(map(math.log, precisions)) / order)


def _precisions(matches: Sequence[int], totals: Sequence[int], smoothing: Smoothing) -> list[float]:
    precisions = []
    without_match = 0
    for n, (matched, total) in enumerate(zip(matches, totals, strict=True), start=1):
        if not total:
            precisions.append(0.0)
        elif smoothing == "add-one" and n > 1:
            precisions.append((matched + 1) / (total + 1))
        elif smoothing == "exponential" and not matched:
            without_match += 1
            precisions.append(1 / (2**without_match * total))
        else:
            precisions.append(matched / total)
    return precisions


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _closest_length(length: int, accepted: Sequence[int]) -> int:
    """The reference length nearest to the candidate's; of two equally near ones the shorter."""
    return min(accepted, key=lambda other: (abs(other - length), other))
