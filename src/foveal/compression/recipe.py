"""A recipe: which method and number format each part of a model gets, and why. No torch.

Rules are tried in order and the first that matches a matrix decides; what no rule matches is kept. Reading YAML and the
presets are in `recipe_reader` and `recipe_presets`; `recipe_resolution` applies a recipe to a model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from foveal.compression.components import Component
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import LinearScheme

__all__ = [
    "FORMATS",
    "METHODS",
    "METHOD_OPTIONS",
    "CalibrationPlan",
    "Format",
    "LayerRange",
    "Method",
    "Recipe",
    "RecipeRule",
    "Rule",
    "TiedDecision",
]

Method = Literal["keep", "rtn", "gptq", "awq", "smoothquant", "nf4", "fp8"]
METHODS: tuple[Method, ...] = get_args(Method)
Format = Literal["compressed-tensors", "gptq", "awq", "bnb-nf4"]
FORMATS: tuple[Format, ...] = get_args(Format)
TiedDecision = Literal["refuse", "embedding", "head"]
OptionValue = bool | int | float | str

METHOD_OPTIONS: dict[Method, dict[str, type]] = {
    "keep": {},
    "rtn": {"observer": str},
    "gptq": {"damping": float, "act_order": bool, "block": int, "observer": str},
    "awq": {"grid": int, "clip": bool},
    "smoothquant": {"alpha": float, "compensate": bool, "damping": float, "act_order": bool, "observer": str},
    "nf4": {},
    "fp8": {},
}
"""What may stand under `options` of a rule. Defaults are the method's."""

OBSERVERS = ("minmax", "mse", "percentile", "sigma")

_WEIGHT_KINDS: dict[Method, tuple[str, ...]] = {
    "rtn": ("int", "float", "nf4"),
    "gptq": ("int",),
    "awq": ("int",),
    "smoothquant": ("int",),
    "nf4": ("nf4",),
    "fp8": ("float",),
}


@dataclass(frozen=True, slots=True)
class LayerRange:
    """Blocks `first` to `last`, both included; `last` None is open."""

    first: int
    last: int | None

    def __contains__(self, layer: int) -> bool:
        return self.first <= layer and (self.last is None or layer <= self.last)

    def __str__(self) -> str:
        if self.last == self.first:
            return str(self.first)
        return f"{self.first}-{'' if self.last is None else self.last}"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a recipe says about one matrix. `scheme` is None exactly where the method is `keep`."""

    method: Method
    scheme: LinearScheme | None
    reason: str
    options: Mapping[str, OptionValue] = field(default_factory=dict, hash=False)

    @property
    def needs_inputs(self) -> bool:
        """Whether calibration data is required, not only useful for measuring the loss."""
        if self.scheme is None:
            return False
        static = self.scheme.activation is not None and not self.scheme.activation.dynamic
        return self.method in ("gptq", "awq", "smoothquant") or static

    def same_decision(self, other: Rule) -> bool:
        """Equal but for the reason given."""
        return (self.method, self.scheme, dict(self.options)) == (other.method, other.scheme, dict(other.options))


@dataclass(frozen=True, slots=True)
class RecipeRule:
    """A rule with the matrices that it is for. Empty conditions match everything; all given ones must hold.

    `layers` without `components` means blocks of the language model, never the tower's. `modules` is a regular
    expression searched for in the module name.
    """

    rule: Rule
    components: tuple[Component, ...] = ()
    layers: tuple[LayerRange, ...] = ()
    modules: str | None = None

    def __post_init__(self) -> None:
        _check_rule(self.rule)

    def matches(self, name: str, component: Component, layer: int | None) -> bool:
        components = self.components or (("attention", "ffn") if self.layers else ())
        if components and component not in components:
            return False
        if self.layers and (layer is None or not any(layer in wanted for wanted in self.layers)):
            return False
        return self.modules is None or re.search(self.modules, name) is not None

    def __str__(self) -> str:
        conditions = [f"component {'/'.join(self.components)}"] if self.components else []
        conditions += [f"layers {','.join(map(str, self.layers))}"] if self.layers else []
        conditions += [f"modules {self.modules!r}"] if self.modules is not None else []
        decision = self.rule.method + (f" {self.rule.scheme.name}" if self.rule.scheme else "")
        return f"{', '.join(conditions) or 'everything'}: {decision}"


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """Where the image-text pairs come from: `rendered-tasks`, or the path of a JSON Lines file. To them come `texts`
    samples without a picture (at most one for two pairs), from `texts_from`: `wiki-summaries` (English, a pinned wheel),
    `own` (what the model itself answers to requests) or the path of a text file."""

    source: str = "rendered-tasks"
    samples: int = 128
    seed: int = 0
    texts: int = 64
    texts_from: str = "wiki-summaries"


@dataclass(frozen=True)
class Recipe:
    """Validated once, by whoever builds it: reader, preset or `auto`."""

    name: str
    rules: tuple[RecipeRule, ...]
    description: str = ""
    calibration: CalibrationPlan = CalibrationPlan()
    modality_weight: float | Literal["auto"] = "auto"
    """Weight of an image token beside a text token in the methods' objective; auto: found by calibration loss."""
    format: Format = "compressed-tensors"
    tied_embedding: TiedDecision = "refuse"
    """Whose rule decides when embedding and head are one tensor and their rules differ; refuse: that is an error."""

    def rule_for(self, name: str, component: Component, layer: int | None) -> Rule:
        """The first rule that matches; without one, `keep`."""
        for candidate in self.rules:
            if candidate.matches(name, component, layer):
                return candidate.rule
        return Rule("keep", None, f"no rule of recipe {self.name} matches it")

    @property
    def needs_calibration(self) -> bool:
        return any(candidate.rule.needs_inputs for candidate in self.rules)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and still deserves a word before hours are spent (mission row Q16)."""
        return tuple(
            f"rule {number} ({candidate}) stores weights in 3 bits: expect a visible loss (AWQ paper, Llama-2-7B "
            "perplexity: 5.47 becomes 6.24 at best). Prefer 4 bits, or prove the result with care."
            for number, candidate in enumerate(self.rules, 1)
            if candidate.rule.scheme is not None and candidate.rule.scheme.weight.bits == 3
        )

    def to_dict(self) -> dict[str, Any]:
        """As the YAML file would have it, in one canonical spelling: for the passport. `recipe_reader` reads it back."""
        result: dict[str, Any] = {"name": self.name}
        if self.description:
            result["description"] = self.description
        result["rules"] = [_rule_to_dict(candidate) for candidate in self.rules]
        calibration = self.calibration
        return result | {
            "calibration": {
                "source": calibration.source,
                "samples": calibration.samples,
                "seed": calibration.seed,
                "texts": calibration.texts,
                "texts_from": calibration.texts_from,
            },
            "objective": {"modality_weight": self.modality_weight},
            "format": self.format,
            "tied_embedding": self.tied_embedding,
        }

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the canonical form: spelling and layout of the file do not change it, meaning does."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _rule_to_dict(candidate: RecipeRule) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if candidate.components:
        result["component"] = list(candidate.components)
    if candidate.layers:
        result["layers"] = [str(layers) for layers in candidate.layers]
    if candidate.modules is not None:
        result["modules"] = candidate.modules
    rule = candidate.rule
    if rule.scheme is None:
        result["keep"] = True
    else:
        result |= {"method": rule.method, "scheme": rule.scheme.name}
    if rule.options:
        result["options"] = dict(rule.options)
    return result | {"reason": rule.reason}


def _check_rule(rule: Rule) -> None:
    if rule.scheme is None or rule.method == "keep":
        if (rule.scheme is None) != (rule.method == "keep"):
            raise ConfigurationError(f"method {rule.method!r} and scheme {rule.scheme} do not fit. Keep, or give both.")
        return
    weight, activation = rule.scheme.weight, rule.scheme.activation
    if weight.kind == "int" and weight.bits == 2:
        raise ConfigurationError(
            f"scheme {rule.scheme.name} is uniform 2-bit: four levels destroy a model whatever the method, so it is "
            "refused. Use int4-g64 (or int3-g64, with a warning), or prune and distil instead."
        )
    if weight.kind not in _WEIGHT_KINDS[rule.method]:
        raise ConfigurationError(
            f"method {rule.method} cannot write scheme {rule.scheme.name}: its weights are {weight.kind}, the method "
            f"does {', '.join(_WEIGHT_KINDS[rule.method])}. Change one of the two; rtn writes every scheme."
        )
    if rule.method == "smoothquant" and activation is None:
        raise ConfigurationError(
            f"method smoothquant moves rounding error from inputs to weights, but scheme {rule.scheme.name} does not "
            "round inputs. Use scheme w8a8-dynamic, or method rtn or gptq."
        )
    _check_options(rule)


def _check_options(rule: Rule) -> None:
    allowed = METHOD_OPTIONS[rule.method]
    unknown = set(rule.options) - set(allowed)
    if unknown:
        raise ConfigurationError(
            f"method {rule.method} has no option {sorted(unknown)[0]!r}. Its options: {', '.join(allowed) or 'none'}."
        )
    observer = rule.options.get("observer", OBSERVERS[0])
    if observer not in OBSERVERS:
        raise ConfigurationError(f"observer {observer!r} is not known. Use one of {', '.join(OBSERVERS)}.")
    for name, least, most in (("damping", 0.0, 1.0), ("alpha", 0.0, 1.0), ("grid", 2, 1000), ("block", 1, 65536)):
        value = rule.options.get(name, least)
        if isinstance(value, str) or not least <= value <= most:
            raise ConfigurationError(f"option {name} is {value!r}; it must be {least} to {most}.")
