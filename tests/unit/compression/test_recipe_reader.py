"""A recipe with a mistake: the message says where, what was found, what is allowed and what was probably meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foveal.compression.recipe_presets import load_recipe
from foveal.compression.recipe_reader import read_recipe, recipe_from
from foveal.core.errors import ConfigurationError

_RULE: dict[str, Any] = {"component": "ffn", "method": "gptq", "scheme": "int4-g64", "reason": "why"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"component": "visoin"}, r"rules\[1\]: component is 'visoin'.*vision.*Did you mean 'vision'"),
        ({"component": ["ffn", "mlp"]}, r"component is 'mlp'.*one or several of"),
        ({"method": "gtpq"}, r"method is 'gtpq'.*Did you mean 'gptq'"),
        ({"method": None}, "method is missing"),
        ({"scheme": "int4-64"}, r"rules\[1\]: scheme: .*int4-g64"),
        ({"scheme": 4}, r"scheme is 4; it must be a name like"),
        (
            {"scheme": {"weight": {"bits": 4, "groupsize": 64}}},
            r"scheme: weight: 'groupsize'.*Did you mean 'group_size'",
        ),
        ({"scheme": {"weight": {"bits": 12}}}, r"12 bits are not known"),
        ({"reason": None}, "reason is missing.*passport"),
        ({"reason": ""}, "reason"),
        ({"layers": "3-1"}, r"layers is '3-1'"),
        ({"layers": "all"}, r"layers is 'all'.*0-15"),
        ({"layers": []}, "layers"),
        ({"modules": "layers.(0"}, "regular expression"),
        (
            {"options": {"dampling": 0.1}},
            r"options: 'dampling'.*method gptq has allowed: damping.*Did you mean 'damping'",
        ),
        ({"options": {"damping": "much"}}, "damping is 'much'; it must be a number"),
        ({"keep": True}, "left out where keep is true"),
        ({"keep": "yes"}, "keep is 'yes'; it must be true or false"),
        ({"metod": "gptq"}, r"'metod' is not known here.*Did you mean 'method'"),
        ({"method": "nf4"}, "method nf4 cannot write scheme int4-g64"),
        ({"method": "smoothquant", "scheme": "int8"}, "does not round inputs"),
    ],
)
def test_a_wrong_rule_is_explained(change: dict[str, Any], message: str) -> None:
    rule = {key: value for key, value in (_RULE | change).items() if value is not None}
    with pytest.raises(ConfigurationError, match=message):
        recipe_from({"rules": [rule]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "recipe is None; it must be a section"),
        ({}, "rules is missing"),
        ({"rules": []}, r"rules is \[\]"),
        ({"rules": "all"}, "rules is 'all'; it must be a list"),
        ({"rules": [_RULE], "calibratoin": {}}, "Did you mean 'calibration'"),
        ({"rules": [_RULE], "calibration": {"samples": 4}}, "calibration: samples is 4; it must be 8 to 4096"),
        ({"rules": [_RULE], "calibration": {"samples": True}}, "samples is True; it must be a whole number"),
        ({"rules": [_RULE], "objective": {"modality_weight": 0}}, "modality_weight is 0"),
        ({"rules": [_RULE], "objective": {"modality_weight": "automatic"}}, "must be auto, or a number"),
        ({"rules": [_RULE], "format": "awk"}, "Did you mean 'awq'"),
        ({"rules": [_RULE], "tied_embedding": "both"}, "refuse, embedding, head"),
    ],
)
def test_a_wrong_recipe_is_explained(values: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        recipe_from(values)


def test_everything_that_may_be_written_is_read() -> None:
    recipe = recipe_from(
        {
            "name": "mine",
            "description": "for the record",
            "rules": [_RULE | {"options": {"damping": 1, "act_order": True}}, {"keep": True, "reason": "rest"}],
            "calibration": {"source": "pairs.jsonl", "samples": 64, "seed": 3},
            "objective": {"modality_weight": 2},
            "format": "gptq",
            "tied_embedding": "head",
        }
    )
    assert (recipe.calibration.source, recipe.calibration.samples, recipe.calibration.seed) == ("pairs.jsonl", 64, 3)
    assert (recipe.modality_weight, recipe.format, recipe.tied_embedding) == (2.0, "gptq", "head")
    assert recipe.rules[0].rule.options == {"damping": 1.0, "act_order": True}


def test_a_file_takes_its_name_where_none_is_given(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("rules:\n  - {component: ffn, method: rtn, scheme: int8, reason: why}\n")
    assert read_recipe(path).name == "small"
    assert load_recipe(path) == read_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [", "is not YAML"),
        ("rules: []\nrules: []\n", "'rules' is given twice"),
        ("a: !!python/name:os.system", "not YAML"),
    ],
)
def test_a_damaged_file_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"broken.yaml.*{message}.*line"):
        read_recipe(path)


def test_an_unreadable_file_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_recipe(path)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"Presets: .*vlm-mixed.*Did you mean 'w4a16-gptq'"):
        load_recipe("w4a16-gtpq")


def test_auto_is_no_file() -> None:
    with pytest.raises(ConfigurationError, match="chosen by measuring a model"):
        load_recipe("auto")
