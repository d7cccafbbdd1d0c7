"""easy-VQA and clip-art readers, on miniature folders of the same layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from foveal.evaluation.tasks.clip_art import category_phrase, read_clip_art
from foveal.evaluation.tasks.easy_vqa import TaskDataError, read_easy_vqa


def test_easy_vqa_questions_are_grouped_by_picture(tmp_path: Path) -> None:
    (tmp_path / "test" / "images").mkdir(parents=True)
    rows = [["what color is it?", "red", 1], ["is there a circle?", "no", 0], ["what shape is it?", "circle", 1]]
    (tmp_path / "test" / "questions.json").write_text(json.dumps(rows))
    first, second = read_easy_vqa(tmp_path, "test")
    assert [q.text for q in first.questions] == ["is there a circle?"]
    assert [q.answer for q in second.questions] == ["red", "circle"]
    assert second.path.name == "1.png"


def test_a_folder_without_easy_vqa_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match="unpack the easy-vqa"):
        read_easy_vqa(tmp_path, "train")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for folder in ("animals/birds", "food", "buildings/furniture", "signs_and_symbols/flags"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(24):
            name = f"{folder.split('/')[-1]}_{number}.png"
            Image.new("RGBA", (30, 20), (200, 0, 0, 255)).save(tmp_path / folder / name)
    return tmp_path


def test_clip_art_takes_its_category_from_the_folder(library: Path) -> None:
    everything = read_clip_art(library, "train") + read_clip_art(library, "held-out")
    assert {item.category for item in everything} == {"animal", "food", "flag"}
    assert len(everything) == 72


def test_clip_art_splits_share_no_file_name(library: Path) -> None:
    trained, held_out = ({item.path.name for item in read_clip_art(library, s)} for s in ("train", "held-out"))
    assert held_out
    assert not trained & held_out


def test_a_name_under_two_categories_is_left_out(library: Path) -> None:
    Image.new("RGBA", (8, 8)).save(library / "food" / "birds_0.png")
    everything = read_clip_art(library, "train") + read_clip_art(library, "held-out")
    assert "birds_0.png" not in {item.path.name for item in everything}


def test_an_unreadable_drawing_is_left_out(library: Path) -> None:
    (library / "food" / "broken.png").write_bytes(b"not a picture")
    everything = read_clip_art(library, "train") + read_clip_art(library, "held-out")
    assert "broken.png" not in {item.path.name for item in everything}


def test_a_drawing_is_centred_on_a_white_square(library: Path) -> None:
    picture = read_clip_art(library, "train")[0].picture()
    assert picture.size == (30, 30)
    assert picture.getpixel((15, 15)) == (200, 0, 0)
    assert picture.getpixel((15, 1)) == (255, 255, 255)


def test_the_caption_names_the_category(library: Path) -> None:
    for item in read_clip_art(library, "train"):
        caption = next(q.answer for q in item.questions if q.task == "caption_category")
        assert caption == f"a drawing of {category_phrase(item.category)}"
