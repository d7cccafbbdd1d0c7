"""Which rule of a recipe decides, and what a recipe is to the passport."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from foveal.compression.recipe import LayerRange, Recipe, RecipeRule, Rule
from foveal.compression.recipe_presets import load_recipe, preset_names
from foveal.compression.recipe_reader import parse_layers, recipe_from
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import parse_linear


def _recipe(*rules: dict[str, object], **top: object) -> Recipe:
    return recipe_from({"rules": [{"reason": "because"} | rule for rule in rules]} | top)


_HALVES = _recipe(
    {"layers": "0-15", "method": "awq", "scheme": "int4-g128-asym"},
    {"layers": "16-31", "method": "gptq", "scheme": "int4-g128"},
)


@pytest.mark.parametrize(("layer", "method"), [(0, "awq"), (15, "awq"), (16, "gptq"), (31, "gptq"), (32, "keep")])
def test_methods_may_differ_by_layer(layer: int, method: str) -> None:
    assert _HALVES.rule_for(f"model.layers.{layer}.mlp.up_proj", "ffn", layer).method == method


def test_layers_without_a_component_never_mean_the_tower() -> None:
    assert _HALVES.rule_for("model.vision_tower.layers.3.mlp.fc1", "vision", 3).method == "keep"


def test_first_matching_rule_decides() -> None:
    recipe = _recipe(
        {"modules": r"layers\.0\.mlp", "keep": True},
        {"component": "ffn", "method": "rtn", "scheme": "int4-g64"},
        {"component": "ffn", "method": "rtn", "scheme": "int8"},
    )
    assert recipe.rule_for("model.layers.0.mlp.up_proj", "ffn", 0).scheme is None
    assert recipe.rule_for("model.layers.1.mlp.up_proj", "ffn", 1).scheme == parse_linear("int4-g64")


def test_all_conditions_of_a_rule_must_hold() -> None:
    recipe = _recipe({"component": "ffn", "layers": "2-", "modules": "down", "method": "rtn", "scheme": "int8"})
    assert recipe.rule_for("model.layers.2.mlp.down_proj", "ffn", 2).method == "rtn"
    for name, component, layer in [
        ("model.layers.1.mlp.down_proj", "ffn", 1),
        ("model.layers.2.mlp.up_proj", "ffn", 2),
        ("model.layers.2.self_attn.down", "attention", 2),
    ]:
        assert recipe.rule_for(name, component, layer).method == "keep"


def test_what_no_rule_matches_is_kept_and_says_so() -> None:
    rule = _HALVES.rule_for("lm_head", "head", None)
    assert (rule.method, rule.scheme) == ("keep", None)
    assert "no rule" in rule.reason


@pytest.mark.parametrize(
    ("written", "ranges"),
    [
        (5, [(5, 5)]),
        ("0-15", [(0, 15)]),
        ("16-", [(16, None)]),
        ("0-3, 8", [(0, 3), (8, 8)]),
        ([2, 1, 0], [(0, 2)]),
        (["0-4", "3-9", "9-"], [(0, None)]),
        (["4-", "6-8"], [(4, None)]),
    ],
)
def test_layer_ranges_have_one_canonical_form(written: object, ranges: list[tuple[int, int | None]]) -> None:
    assert parse_layers(written) == tuple(LayerRange(*one) for one in ranges)


@given(st.lists(st.integers(0, 40), min_size=1))
def test_joined_ranges_hold_exactly_the_layers_written(layers: list[int]) -> None:
    ranges = parse_layers(layers)
    assert {layer for layer in range(50) if any(layer in one for one in ranges)} == set(layers)


def test_digest_is_the_meaning_not_the_spelling() -> None:
    short = _recipe({"layers": "0-2", "component": "ffn", "method": "gptq", "scheme": "int4-g64"}, name="same")
    long = _recipe(
        {
            "component": ["ffn"],
            "layers": [2, 0, 1],
            "scheme": {"weight": {"kind": "int", "bits": 4, "symmetric": True, "group_size": 64}},
            "method": "gptq",
            "options": {},
        },
        name="same",
        format="compressed-tensors",
        objective={"modality_weight": "auto"},
    )
    assert short.digest == long.digest
    other = _recipe({"layers": "0-2", "component": "ffn", "method": "gptq", "scheme": "int4-g32"}, name="same")
    assert other.digest != short.digest


@pytest.mark.parametrize("name", preset_names())
def test_presets_survive_the_passport(name: str) -> None:
    preset = load_recipe(name)
    assert preset.name == name
    assert preset.warnings == ()
    assert recipe_from(preset.to_dict()) == preset
    assert recipe_from(preset.to_dict()).digest == preset.digest


def test_named_presets_are_there() -> None:
    assert {"w8a8", "w4a16-gptq", "w4a16-awq", "nf4", "vlm-mixed", "rtn4", "w8a16", "fp8"} <= set(preset_names())


def test_mixed_preset_gives_each_part_its_own_precision() -> None:
    preset = load_recipe("vlm-mixed")
    decided = {part: preset.rule_for("any", part, 0).scheme for part in ("vision", "embedding", "attention", "ffn")}
    assert {part: scheme and scheme.name for part, scheme in decided.items()} == {
        "vision": "w8a8-dynamic",
        "embedding": "int8",
        "attention": "int8",
        "ffn": "int4-g64",
    }
    assert preset.rule_for("any", "projector", None).method == "keep"
    assert preset.rule_for("any", "head", None).method == "keep"


def test_uniform_two_bit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"int2-g32 is uniform 2-bit.*refused"):
        _recipe({"method": "gptq", "scheme": "int2-g32"})


def test_three_bit_warns() -> None:
    (warning,) = _recipe({"method": "gptq", "scheme": "int3-g64"}).warnings
    assert "3 bits" in warning


def test_a_rule_built_in_code_is_checked_like_one_from_a_file() -> None:
    with pytest.raises(ConfigurationError, match="cannot write scheme nf4-g64"):
        RecipeRule(Rule("gptq", parse_linear("nf4-g64"), "why"))


def test_recipes_load_without_torch() -> None:
    code = (
        "import sys; from foveal.compression import auto, budget, recipe_presets, recipe_resolution, sensitivity_table; "
        "recipe_presets.load_recipe('vlm-mixed'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


_GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "compress.md").read_text(encoding="utf-8")


def test_the_recipe_in_the_guide_is_one() -> None:
    written = re.search(r"```yaml\n(.*?)```", _GUIDE, re.DOTALL)
    assert written is not None
    recipe = recipe_from(yaml.safe_load(written[1]))
    assert recipe.rule_for("model.layers.20.mlp.down_proj", "ffn", 20).scheme == parse_linear("int4-g64")
    assert recipe.rule_for("model.layers.3.mlp.down_proj", "ffn", 3).method == "awq"


def test_the_guide_lists_every_preset() -> None:
    assert set(re.findall(r"^\| `([\w-]+)` \|", _GUIDE, re.MULTILINE)) >= set(preset_names())


def test_schemes_of_the_guide_are_known() -> None:
    table = _GUIDE[_GUIDE.index("| scheme |") :].split("\n\n")[0]
    names = [name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(names) == 8
    assert [parse_linear(name).name for name in names] == names
