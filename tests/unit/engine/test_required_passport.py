"""With --require-passport the engine loads nothing that is not what its passport says."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveal.artifacts.passport_file import record_proof
from foveal.core.errors import ArtifactError, ChangedFileError, PassportMissingError, VerdictError
from foveal.engine.async_engine import AsyncEngine
from foveal.engine.build import build_engine_loop, check_passport
from foveal.engine.config import EngineConfig
from foveal.engine.remote_error import describe_error, rebuild_error
from unit.artifacts.artefacts import make_artefact


def _config(directory: Path | str, **options: bool) -> EngineConfig:
    return EngineConfig(model=str(directory), num_threads=1, **options)  # type: ignore[arg-type]


def test_an_untouched_artefact_passes(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    check_passport(_config(tmp_path, require_passport=True))


def test_without_the_option_nothing_is_read(tmp_path: Path) -> None:
    check_passport(_config(tmp_path / "none"))


def test_a_changed_weight_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    make_artefact(tmp_path)
    path = tmp_path / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ChangedFileError):
        build_engine_loop(_config(tmp_path, require_passport=True))


@pytest.mark.parametrize("option", ["require_passport", "require_verdict"])
def test_a_model_without_passport_is_refused(tmp_path: Path, option: str) -> None:
    for model in (tmp_path, "org/name"):
        with pytest.raises(PassportMissingError):
            check_passport(_config(model, **{option: True}))


def test_a_required_verdict_must_accept_this_passport(tmp_path: Path) -> None:
    passport = make_artefact(tmp_path)
    config = _config(tmp_path, require_verdict=True)
    with pytest.raises(VerdictError, match="has not been judged"):
        check_passport(config)
    record_proof(tmp_path, evaluation=None, verdict={"accepted": False, "passport_digest": passport.digest})
    with pytest.raises(VerdictError, match="rejected by the quality gate"):
        check_passport(config)
    check_passport(_config(tmp_path, require_passport=True))
    record_proof(tmp_path, evaluation=None, verdict={"accepted": True, "passport_digest": passport.digest})
    check_passport(config)


def test_the_error_keeps_its_kind_and_text_across_processes() -> None:
    error = ChangedFileError("m has digest a", "b", "Copy it again")
    rebuilt = rebuild_error(*describe_error(error))
    assert type(rebuilt) is ChangedFileError
    assert str(rebuilt) == str(error) == "m has digest a; expected b. Copy it again"


@pytest.mark.slow
async def test_the_front_end_gets_the_engine_process_reason(tmp_path: Path) -> None:
    from support.tiny_checkpoints import build_tiny_checkpoint

    build_tiny_checkpoint("llama", tmp_path)
    engine = AsyncEngine(_config(tmp_path, require_passport=True))
    with pytest.raises(ArtifactError, match=r"has no passport\.json"):
        await engine.start()
