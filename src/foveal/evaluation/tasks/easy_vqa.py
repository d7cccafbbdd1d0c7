"""Reads easy-VQA (MIT licence): 4,000 training and 1,000 test pictures of one coloured shape.

Source: the Python package `easy-vqa` 1.0; its folder `easy_vqa/data` is the root here. Questions stay as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from foveal.artifacts.pinned_wheel import WheelSource
from foveal.core.errors import FovealError
from foveal.evaluation.tasks.scene import Question

__all__ = ["EASY_VQA", "EasyVqaItem", "TaskDataError", "read_easy_vqa"]


EASY_VQA = WheelSource(
    requirement="easy-vqa==1.0",
    wheel="easy_vqa-1.0-py3-none-any.whl",
    sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
    member="easy_vqa/data/",
    licence="MIT",
    size_bytes=3_215_672,
)


class TaskDataError(FovealError):
    """A task's data is missing or malformed."""


@dataclass(frozen=True)
class EasyVqaItem:
    path: Path
    questions: tuple[Question, ...]

    def picture(self) -> Image.Image:
        """The picture as RGB, 64 x 64 pixels."""
        return Image.open(self.path).convert("RGB")


def read_easy_vqa(root: Path, split: Literal["train", "test"]) -> list[EasyVqaItem]:
    """All items of a split, in picture order. Raises TaskDataError when the folder does not hold easy-VQA."""
    questions_file = root / split / "questions.json"
    if not questions_file.is_file():
        raise TaskDataError(
            f"{questions_file} does not exist; unpack the easy-vqa 1.0 wheel and pass its folder easy_vqa/data"
        )
    by_picture: dict[int, list[Question]] = {}
    for text, answer, picture in json.loads(questions_file.read_text()):
        by_picture.setdefault(picture, []).append(Question("easy_vqa", text, answer))
    return [
        EasyVqaItem(root / split / "images" / f"{picture}.png", tuple(asked))
        for picture, asked in sorted(by_picture.items())
    ]
