"""Regular expressions that name modules in a `quantization_config`, right under every name a reader may use.

One linear has several names: `model.language_model.layers.0.mlp.up_proj` in transformers, `language_model.model.layers.
0.mlp.up_proj` in its checkpoint and in vLLM, `model.layers...` in older files. What they share is the tail after the
containers, and whether a container belongs to the vision tower. An expression is therefore: tower or not, then the
tail, to the end. A plain name in its place has quantised towers by accident, or loaded as NaN.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from foveal.core.errors import IntegrityError

__all__ = ["match_expressions", "matches"]

_TOWERS = ("vision_tower", "vision_model", "visual")
_CONTAINERS = {"model", "language_model", "text_model", "transformer", *_TOWERS}
_IN_TOWER = rf"re:(?:.*\.)?(?:{'|'.join(_TOWERS)})\.(?:.*\.)?"
_ELSEWHERE = rf"re:(?!(?:.*\.)?(?:{'|'.join(_TOWERS)})\.)(?:.*\.)?"


def match_expressions(groups: Mapping[str, Collection[str]], others: Iterable[str] = ()) -> dict[str, list[str]]:
    """For each group the expressions that match its modules and none of another group's nor of `others`.

    Names are modules of the loaded model. Expressions start with `re:` as compressed-tensors wants them (without it
    they serve as plain regular expressions for `re.match`). Raises IntegrityError if two modules share all that
    survives renaming, so that no expression can tell them apart.
    """
    everything = {name for names in groups.values() for name in names} | set(others)
    indices_of = _indices(everything)
    expressions = {group: _expressions(set(names), indices_of) for group, names in groups.items()}
    for group, names in groups.items():
        found = {name for name in everything if matches(name, expressions[group])}
        if found != set(names):
            wrong = ", ".join(sorted(found ^ set(names))[:3])
            raise IntegrityError(f"no regular expression tells {wrong} apart from other modules of this model")
    return expressions


def matches(name: str, expressions: Iterable[str]) -> bool:
    """True if one of the `re:` expressions matches the module name, as compressed-tensors and vLLM decide it."""
    return any(re.match(expression.removeprefix("re:"), name) for expression in expressions)


def _expressions(names: set[str], indices_of: Mapping[tuple[str, str], set[str]]) -> list[str]:
    # Alike names become one expression: same place, same indices, different last part.
    parts_of: defaultdict[tuple[str, str, frozenset[str]], set[str]] = defaultdict(set)
    for (place, template), indices in _indices(names).items():
        head, _, last = template.rpartition(".")
        chosen = frozenset(["*"] if indices == indices_of[place, template] and "{}" in template else indices)
        parts_of[place, head, chosen].add(last)
    result = []
    for (place, head, indices), last in parts_of.items():
        if "{}" in last:  # the index itself comes last
            last, head = {""}, f"{head}.{{}}" if head else "{}"
        number = r"\d+" if indices == {"*"} else _any_of(indices, key=lambda index: int(index) if index else -1)
        body = re.escape(head).replace(re.escape("{}"), number)
        dot = r"\." if head and last != {""} else ""
        result.append(f"{place}{body}{dot}{_any_of(last)}$")
    return sorted(result)


def _indices(names: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """(tower or elsewhere, tail with {} for its first number) -> the numbers found there."""
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for name in names:
        parts = name.split(".")
        place = _IN_TOWER if any(part in _TOWERS for part in parts[:-1]) else _ELSEWHERE
        while len(parts) > 1 and parts[0] in _CONTAINERS:
            parts = parts[1:]
        number = next((position for position, part in enumerate(parts) if part.isdigit()), None)
        index = ""
        if number is not None:
            index, parts[number] = parts[number], "{}"
        found[place, ".".join(parts)].add(index)
    return found


def _any_of(values: Iterable[str], key=None) -> str:
    ordered = [re.escape(value) for value in sorted(values, key=key)]
    return ordered[0] if len(ordered) == 1 else f"(?:{'|'.join(ordered)})"
