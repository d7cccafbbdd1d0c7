"""The commands as a user types them, on a tiny checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.tiny_models import tiny_checkpoint, tiny_image


def _foveal(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "foveal.cli.app", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    tiny_image(0).save(path)
    return path


def test_run_prints_the_answer_and_its_timings_as_json(picture: Path) -> None:
    result = _foveal(
        "run",
        str(tiny_checkpoint("llava")),
        "What?",
        "--image",
        str(picture),
        "--max-tokens",
        "4",
        "--threads",
        "1",
        "--json",
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["image_tokens"] == 16
    assert 1 <= answer["completion_tokens"] <= 4
    assert answer["ttft_s"] > 0


def test_chat_holds_a_conversation_and_survives_a_bad_path(picture: Path) -> None:
    lines = f"/image {picture.parent / 'missing.png'}\n/image {picture}\nhello\nand now?\n/exit\n"
    result = _foveal("chat", str(tiny_checkpoint("llava")), "--max-tokens", "4", "--threads", "1", stdin=lines)
    assert result.returncode == 0, result.stderr
    assert "cannot read image" in result.stdout
    assert result.stdout.count("TTFT") == 2
    assert result.stdout.count("(16 image") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "/no/such/model", "hi"), "there is no directory"),
        (("run", "MODEL", "hi", "--image", "/no/such.png"), "check the path"),
        (("run", "MODEL", "hi", "--temperature", "9"), "temperature is 9"),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy_and_no_traceback(arguments: tuple[str, ...], message: str) -> None:
    result = _foveal(*(str(tiny_checkpoint("llama")) if a == "MODEL" else a for a in arguments))
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
