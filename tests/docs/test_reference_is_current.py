"""Documentation is a tested artefact."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from foveal.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
assert _spec is not None
assert _spec.loader is not None
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


def test_generated_pages_say_what_the_code_says() -> None:
    for path, text in generate.pages().items():
        assert path.read_text() == text, f"{path.name} has drifted; run `make docs`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_a_runnable_example(name: str) -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    sections = [part for part in page.split("\n## ")[1:] if part.startswith(f"`foveal {name}")]
    assert sections
    for section in sections:
        assert re.search(rf"```\nfoveal {re.escape(name)}", section), f"{name} has no example"


def test_relative_links_in_the_documentation_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
