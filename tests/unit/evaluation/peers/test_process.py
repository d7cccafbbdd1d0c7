"""Talking with an engine in another process, a fake one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from foveal.evaluation.peers.process import EngineProcess, PeerError

FAKE = str(Path(__file__).with_name("fake_runner.py"))


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    with EngineProcess(sys.executable, FAKE, threads=1) as process:
        yield process


def load(engine: EngineProcess, tmp_path: Path, mode: str = "int8") -> dict[str, object]:
    out = str(tmp_path / "converted")
    engine.ask("convert", model="m", mode=mode, out=out)
    return engine.ask("load", model="m", mode=mode, converted=out, limits={"threads": 1, "sequences": 2, "tokens": 8})


def test_an_engine_answers_in_order_even_when_its_libraries_print(engine: EngineProcess, tmp_path: Path) -> None:
    assert load(engine, tmp_path)["weight_bits"] == 8
    reply = engine.generate([[1, 2], [7, 8]], 3)
    assert reply["token_ids"] == [[3, 4, 5], [9, 10, 11]]
    assert reply["wall_s"] > 0


def test_logits_come_as_a_file_of_float32(engine: EngineProcess, tmp_path: Path) -> None:
    load(engine, tmp_path)
    out = tmp_path / "logits.npy"
    assert engine.ask("logits", prompt=[3, 4, 5], out=str(out))["shape"] == [3, 16]
    logits = np.load(out)
    assert logits.dtype == np.float32
    assert logits.argmax(1).tolist() == [4, 5, 6]


def test_a_frozen_engine_wakes_when_it_is_asked(engine: EngineProcess, tmp_path: Path) -> None:
    load(engine, tmp_path)
    engine.freeze()
    engine.freeze()
    assert engine.generate([[1]], 1)["token_ids"] == [[2]]


def test_an_engine_that_refuses_says_why_and_stays(engine: EngineProcess, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="RuntimeError: illegal instruction set"):
        load(engine, tmp_path, mode="broken")
    with pytest.raises(PeerError, match="unknown operation 'dance'"):
        engine.ask("dance")


def test_answers_of_a_wrong_length_are_an_error_not_a_speed(engine: EngineProcess, tmp_path: Path) -> None:
    load(engine, tmp_path, mode="short")
    with pytest.raises(PeerError, match=r"1 prompts x 4 tokens were asked for, got lengths \{3\}"):
        engine.generate([[1]], 4)


def test_the_last_words_of_a_process_that_died_are_kept(engine: EngineProcess, tmp_path: Path) -> None:
    load(engine, tmp_path, mode="dies")
    with pytest.raises(PeerError, match=r"(?s)ended with 7 while asked to generate: .*out of memory"):
        engine.generate([[1], [2]], 4)


def test_a_closed_engine_is_gone_even_if_it_was_frozen(tmp_path: Path) -> None:
    engine = EngineProcess(sys.executable, FAKE, threads=1)
    load(engine, tmp_path)
    engine.freeze()
    engine.close()
    engine.close()
    with pytest.raises(PeerError):
        engine.ask("load", model="m", mode="int8", converted="", limits={})
