"""Read a recipe from YAML. Every error says where, what was found, what is allowed and, for a typo, the nearest name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml  # type: ignore[import-untyped]

from foveal.compression.components import COMPONENTS, Component
from foveal.compression.recipe import (
    FORMATS,
    METHOD_OPTIONS,
    METHODS,
    CalibrationPlan,
    LayerRange,
    Method,
    Recipe,
    RecipeRule,
    Rule,
)
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import ActivationScheme, LinearScheme, WeightScheme, parse_linear

__all__ = ["parse_layers", "read_recipe", "recipe_from"]

MIN_SAMPLES = 8
MAX_SAMPLES = 4096
MAX_TEXTS = 128

_T = TypeVar("_T")
_TIED: tuple[Literal["refuse", "embedding", "head"], ...] = ("refuse", "embedding", "head")
_SCHEME_EXAMPLES = "int4-g64, int4-g64-asym, int8, nf4-g64-dq, fp8, w8a8-dynamic"
_RANGE = re.compile(r"(\d+)(?:\s*(-)\s*(\d+)?)?")


def read_recipe(path: str | Path) -> Recipe:
    """The recipe of a YAML file. Raises ConfigurationError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"recipe {path} cannot be read ({error}). Give a YAML file in UTF-8 or the name of a preset."
        ) from error
    try:
        values = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"recipe {path} is not YAML: {reason}. Mend the line it names.") from error
    return recipe_from(values, where=str(path), default_name=path.stem)


def recipe_from(values: object, *, where: str = "recipe", default_name: str = "custom") -> Recipe:
    """The recipe of parsed YAML, JSON or `Recipe.to_dict`. Raises ConfigurationError that starts with `where`."""
    top = _Section(where, values)
    name = top.take("name", str, default_name)
    description = top.take("description", str, "")
    entries = top.take("rules", list, None)
    if not entries:
        raise top.error("rules", entries, "a list of at least one rule")
    rules = tuple(_rule(f"{where}: rules[{number}]", entry) for number, entry in enumerate(entries, 1))
    calibration = _calibration(_Section(f"{where}: calibration", top.take("calibration", dict, {})))
    objective = _Section(f"{where}: objective", top.take("objective", dict, {}))
    weight = _modality_weight(objective)
    objective.finish()
    file_format = top.choose("format", FORMATS, "compressed-tensors")
    tied = top.choose("tied_embedding", _TIED, "refuse")
    top.finish()
    return Recipe(name, rules, description, calibration, weight, file_format, tied)


def parse_layers(value: object, where: str = "layers") -> tuple[LayerRange, ...]:
    """5, "0-15", "16-", "0-3,8" or a list of these -> sorted ranges, neighbours joined. Raises ConfigurationError."""
    parts = value if isinstance(value, list) else str(value).split(",")
    if isinstance(value, bool) or not parts:
        raise _layers_error(where, value)
    ranges = []
    for part in parts:
        match = _RANGE.fullmatch(str(part).strip())
        if match is None or isinstance(part, bool):
            raise _layers_error(where, part)
        first = int(match[1])
        last = None if match[2] and not match[3] else int(match[3] or first)
        if last is not None and last < first:
            raise _layers_error(where, part)
        ranges.append(LayerRange(first, last))
    return _joined(ranges)


def _joined(ranges: Iterable[LayerRange]) -> tuple[LayerRange, ...]:
    result: list[LayerRange] = []
    for layers in sorted(ranges, key=lambda one: one.first):
        before = result[-1] if result else None
        if before is None or (before.last is not None and before.last + 1 < layers.first):
            result.append(layers)
        elif before.last is not None:
            last = None if layers.last is None else max(before.last, layers.last)
            result[-1] = LayerRange(before.first, last)
    return tuple(result)


def _layers_error(where: str, found: object) -> ConfigurationError:
    return ConfigurationError(
        f'{where} is {found!r}. Write a number (5), a range ("0-15"; "16-" is to the last) or a list of these.'
    )


def _rule(where: str, values: object) -> RecipeRule:
    section = _Section(where, values)
    components = section.take_names("component", COMPONENTS)
    layers = parse_layers(section.raw("layers"), f"{where}: layers") if section.has("layers") else ()
    modules = section.take("modules", str, None)
    if modules is not None:
        try:
            re.compile(modules)
        except re.error as error:
            raise section.error("modules", modules, f"a regular expression ({error})") from error
    reason = section.take("reason", str, None)
    if not reason:
        raise section.error("reason", reason, "one line that says why: it goes into the passport")
    keep = section.take("keep", bool, False)
    method = section.choose("method", METHODS, "keep" if keep else None)
    if keep != (method == "keep"):
        raise section.error("method", method, "left out where keep is true; `keep: true` in place of `method: keep`")
    scheme = None if keep else _scheme(section)
    options = _options(_Section(f"{where}: options", section.take("options", dict, {})), method)
    section.finish()
    try:
        return RecipeRule(Rule(method, scheme, reason, options), components, layers, modules)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _scheme(section: _Section) -> LinearScheme:
    found = section.raw("scheme")
    try:
        if isinstance(found, str):
            return parse_linear(found)
        if isinstance(found, Mapping):
            return _spelled_out(_Section(f"{section.where}: scheme", found))
    except ConfigurationError as error:
        known = str(error).startswith(section.where)
        raise error if known else ConfigurationError(f"{section.where}: scheme: {error}") from None
    raise section.error("scheme", found, f"a name like {_SCHEME_EXAMPLES}, or a section with `weight`")


def _spelled_out(section: _Section) -> LinearScheme:
    weight = _Section(f"{section.where}: weight", section.take("weight", dict, {}))
    activation = _Section(f"{section.where}: activation", section.take("activation", dict, {}))
    section.finish()
    group = weight.take("group_size", int, None)
    stored = WeightScheme(
        weight.choose("kind", ("int", "float", "nf4"), "int"),
        weight.take("bits", int, 4),
        weight.take("symmetric", bool, True),
        group,
        weight.take("double_quant", bool, False),
    )
    weight.finish()
    rounded = None
    if activation.values:
        rounded = ActivationScheme(
            activation.take("bits", int, 8),
            activation.take("dynamic", bool, True),
            activation.take("symmetric", bool, True),
        )
    activation.finish()
    return LinearScheme(stored, rounded)


def _options(section: _Section, method: Method) -> dict[str, bool | int | float | str]:
    types = METHOD_OPTIONS[method]
    result = {name: section.take(name, kind, None) for name, kind in types.items() if section.has(name)}
    section.finish(extra=f"method {method} has ")
    return result


def _calibration(section: _Section) -> CalibrationPlan:
    defaults = CalibrationPlan()
    plan = CalibrationPlan(
        section.take("source", str, defaults.source),
        section.take("samples", int, defaults.samples),
        section.take("seed", int, defaults.seed),
        section.take("texts", int, defaults.texts),
        section.take("texts_from", str, defaults.texts_from),
    )
    section.finish()
    if not 0 <= plan.texts <= MAX_TEXTS:
        raise section.error("texts", plan.texts, f"0 (none) to {MAX_TEXTS}; 64 is usual")
    if not MIN_SAMPLES <= plan.samples <= MAX_SAMPLES:
        raise section.error("samples", plan.samples, f"{MIN_SAMPLES} to {MAX_SAMPLES}; 128 is usual")
    return plan


def _modality_weight(section: _Section) -> float | Literal["auto"]:
    found = section.raw("modality_weight", "auto")
    if found == "auto":
        return "auto"
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 < found <= 1000:
        raise section.error(
            "modality_weight", found, "auto, or a number above 0 (1: image and text tokens count alike)"
        )
    return float(found)


class _Section:
    """A mapping that is taken apart key by key; `finish` refuses what nobody asked for."""

    def __init__(self, where: str, values: object) -> None:
        if not isinstance(values, Mapping):
            raise ConfigurationError(f"{where} is {_shown(values)}; it must be a section of `name: value` lines.")
        self.where = where
        self.values = {str(key): value for key, value in values.items()}
        self._known: dict[str, None] = {}

    def has(self, key: str) -> bool:
        self._known[key] = None
        return key in self.values

    def raw(self, key: str, default: object = None) -> object:
        return self.values[key] if self.has(key) else default

    def take(self, key: str, kind: type[_T], default: Any) -> Any:
        """The value, of type `kind` (an int also serves as float). A default of None is returned unchecked."""
        if not self.has(key):
            return default
        found = self.values[key]
        if kind is float and isinstance(found, int) and not isinstance(found, bool):
            return float(found)
        if not isinstance(found, kind) or (kind is not bool and isinstance(found, bool)):
            names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
            raise self.error(key, found, names.get(kind, "a section" if kind is dict else "a list"))
        return found

    def choose(self, key: str, allowed: tuple[_T, ...], default: _T | None) -> _T:
        found = self.raw(key, default)
        if found not in allowed:
            raise self.error(key, found, f"one of {', '.join(map(str, allowed))}", _nearest(found, allowed))
        return found

    def take_names(self, key: str, allowed: tuple[Component, ...]) -> tuple[Component, ...]:
        found = self.raw(key, [])
        names = found if isinstance(found, list) else [found]
        for name in names:
            if name not in allowed:
                raise self.error(key, name, f"one or several of {', '.join(allowed)}", _nearest(name, allowed))
        return tuple(name for name in allowed if name in names)

    def finish(self, extra: str = "") -> None:
        for key in self.values:
            if key not in self._known:
                allowed = ", ".join(self._known) or "nothing"
                raise ConfigurationError(
                    f"{self.where}: {key!r} is not known here; {extra}allowed: {allowed}.{_nearest(key, self._known)}"
                )

    def error(self, key: str, found: object, allowed: str, hint: str = "") -> ConfigurationError:
        state = "is missing" if found is None else f"is {_shown(found)}"
        return ConfigurationError(f"{self.where}: {key} {state}; it must be {allowed}.{hint}")


def _nearest(found: object, allowed: Iterable[object]) -> str:
    close = difflib.get_close_matches(str(found), [str(name) for name in allowed], 1, 0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    """A key given twice is an error; plain YAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        return values
