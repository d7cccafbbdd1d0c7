"""A small artefact on disk: not a model that loads, but everything that the passport talks about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from foveal.artifacts.file_digests import digest_files
from foveal.artifacts.model_files import model_files
from foveal.artifacts.passport import Calibration, LinearEntry, Passport, Sizes, Source
from foveal.artifacts.passport_file import write_passport

LINEARS = {
    "model.layers.0.q_proj": LinearEntry(
        component="attention", scheme="int4-g64", method="gptq", bits=4, bytes_before=512, bytes_after=144, sqnr_db=20.5
    ),
    "lm_head": LinearEntry(component="head", kept_reason="output head", bytes_before=1024, bytes_after=1024),
}


def make_artefact(directory: Path, **changes: Any) -> Passport:
    """Two weight files, a configuration, a tokenizer, and the passport of all four."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model-00001-of-00002.safetensors").write_bytes(bytes(range(256)) * 40)
    (directory / "model-00002-of-00002.safetensors").write_bytes(b"second" * 100)
    (directory / "config.json").write_text('{"model_type": "llava"}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "README.md").write_text("not in the passport")
    passport = Passport(
        source=Source(name="base", digest="sha256:base"),
        recipe={"preset": "w4a16-gptq", "rules": [{"bits": 4, "damping": 0.01}]},
        calibration=Calibration(digest="sha256:calibration", samples=128, kind="rendered-tasks"),
        linears=LINEARS,
        sizes=Sizes(source_bytes=40_000, bytes=10_840),
        tools={"foveal": "0.1.0", "torch": "2.13.0"},
        files=digest_files(directory, model_files(directory)),
    )
    passport = replace(passport, **changes)
    write_passport(directory, passport)
    return passport
