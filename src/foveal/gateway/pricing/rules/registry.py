"""Family names -> rules. A new family is one line here, its rule, and a row in the test against its image processor."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from foveal.core.errors import ConfigurationError
from foveal.gateway.pricing.rules.anyres import AnyResRule
from foveal.gateway.pricing.rules.pixtral import PixtralRule
from foveal.gateway.pricing.rules.rule import Options, VisionRule
from foveal.gateway.pricing.rules.smart_resize import SmartResizeRule
from foveal.gateway.pricing.rules.tiles import ClosestGridRule, HdTransformRule, LongestEdgeTilesRule
from foveal.gateway.pricing.rules.views import FixedRule, PanAndScanRule

__all__ = ["RULES", "family_of_name", "make_rule"]

RULES: dict[str, Callable[[Options], VisionRule]] = {
    "qwen2_vl": SmartResizeRule.qwen2_vl,
    "qwen2_5_vl": SmartResizeRule.qwen2_vl,
    "qwen3_vl": SmartResizeRule.qwen3_vl,
    "qwen3_vl_moe": SmartResizeRule.qwen3_vl,
    "glm4v": SmartResizeRule.glm4v,
    "llava": FixedRule.llava,
    "llava_next": AnyResRule.llava_next,
    "idefics3": LongestEdgeTilesRule.idefics3,
    "smolvlm": LongestEdgeTilesRule.smolvlm,
    "internvl": ClosestGridRule.internvl,
    "gemma3": PanAndScanRule.gemma3,
    "pixtral": PixtralRule.pixtral,
    "mistral3": PixtralRule.mistral3,
    "phi4_multimodal": HdTransformRule.phi4,
    "fixed": FixedRule.fixed,
}

# How checkpoints of these families are named. Only a first guess: usage of answers confirms or refutes it.
_NAMES = (
    (re.compile(r"qwen3[-_.]?vl"), "qwen3_vl"),
    (re.compile(r"qwen2[-_.]?5[-_.]?vl"), "qwen2_5_vl"),
    (re.compile(r"qwen2[-_.]?vl"), "qwen2_vl"),
    (re.compile(r"glm-?4\.?[156]?v"), "glm4v"),
    (re.compile(r"llava-?(v?1\.6|next)"), "llava_next"),
    (re.compile(r"llava-?(v?1\.5)"), "llava"),
    (re.compile(r"smolvlm"), "smolvlm"),
    (re.compile(r"idefics3"), "idefics3"),
    (re.compile(r"internvl"), "internvl"),
    (re.compile(r"gemma-?3-(4|12|27)b"), "gemma3"),
    (re.compile(r"pixtral"), "pixtral"),
    (re.compile(r"mistral-?small-?3\.[12]"), "mistral3"),
    (re.compile(r"phi-?4-?multimodal"), "phi4_multimodal"),
)


def make_rule(family: str, options: Options) -> VisionRule:
    """Raises ConfigurationError for an unknown family or an option that cannot be."""
    maker = RULES.get(family)
    if maker is None:
        close = difflib.get_close_matches(family, RULES, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigurationError(
            f"there is no vision rule {family!r}{hint} Known are auto, {', '.join(sorted(RULES))}; auto learns any other"
        )
    try:
        return maker(options)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"options of vision rule {family}: {error}") from error


def family_of_name(name: str) -> str | None:
    """A guess from a checkpoint's name, e.g. Qwen/Qwen2.5-VL-3B-Instruct; None if it says nothing."""
    lower = name.lower()
    return next((family for pattern, family in _NAMES if pattern.search(lower)), None)
