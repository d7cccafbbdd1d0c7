"""The gate on the demo VLM: an honest INT8 model is accepted; each of these is rejected, with the right reason:

a tower quantised to garbage, a zeroed projector, no layer quantised, a truncated file, an edited passport, other weights
than the passport lists, and calibration on noise.

    python benchmarks/acceptance/compress_04_gate.py --model .demo/foveal-demo --folder .demo/gate [--honest DIR]

The honest model is proved on the default suite, the broken ones on the quick one: what is broken shows at once.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness_path import ROOT  # noqa: F401 - makes harness importable
from PIL import Image
from rich.console import Console

from foveal.artifacts.file_digests import digest_files
from foveal.artifacts.model_files import model_files, source_digest, weight_bytes
from foveal.artifacts.passport import LinearEntry, Passport, Sizes, Source
from foveal.artifacts.passport_file import write_passport
from foveal.artifacts.verification import require_accepted, verify
from foveal.compression.calibration import CalibrationSet
from foveal.compression.calibration_fitness import CalibrationUnfitError
from foveal.compression.recipe_presets import load_recipe
from foveal.compression.records import CompressionResult
from foveal.evaluation.suite import DEFAULT, QUICK, Suite
from foveal.pipeline import compress as pipeline_compress
from foveal.pipeline.compress import CompressionJob, calibration_for, compress_model
from foveal.pipeline.prove import Proof, prove
from foveal.pipeline.suite_data import resolve_suite

Spoil = Callable[[CompressionResult], CompressionResult]


@dataclass(frozen=True)
class Case:
    """What must be rejected, how to make it, and a beginning or part of the reason that must be given."""

    name: str
    make: Callable[[Path], None]
    reason: str


class UncheckedPairs(CalibrationSet):
    """Calibration data that compression would refuse, let through so that the gate has something to find."""

    def refuse_unfit(self, *, supports_images: bool = True) -> None:
        return


class Maker:
    """Makes artefacts of `model`; spoiled ones have a sound passport."""

    def __init__(self, model: Path, honest: Path) -> None:
        self.model, self.honest = model, honest

    def compress(self, output: Path, recipe: str, calibration: CalibrationSet | None = None) -> None:
        compress_model(CompressionJob(self.model, load_recipe(recipe), output, calibration, force=True))

    def spoiled(self, output: Path, spoil: Spoil) -> None:
        sound, check = pipeline_compress.compress, pipeline_compress.check_reload
        pipeline_compress.compress = lambda *a, **k: spoil(sound(*a, **k))  # type: ignore[assignment]
        pipeline_compress.check_reload = lambda directory, result: None  # type: ignore[assignment]
        try:
            self.compress(output, "w8a16")
        finally:
            pipeline_compress.compress, pipeline_compress.check_reload = sound, check

    def garbage_tower(self, output: Path) -> None:
        def spoil(result: CompressionResult) -> CompressionResult:
            order = torch.Generator().manual_seed(0)
            weights = dict(result.weights)
            for name, quantised in weights.items():
                if "vision_tower" in name:
                    mixed = torch.randperm(quantised.codes.numel(), generator=order)
                    weights[name] = replace(quantised, codes=quantised.codes.flatten()[mixed].view_as(quantised.codes))
            return replace(result, weights=weights)

        self.spoiled(output, spoil)

    def blind(self, output: Path) -> None:
        from foveal.models.loading import load_model

        model = load_model(self.model).hf_model
        zeros = {
            name: torch.zeros_like(tensor)
            for name, tensor in model.named_parameters()
            if "multi_modal_projector" in name
        }
        self.spoiled(output, lambda result: replace(result, replaced=result.replaced | zeros))

    def untouched(self, output: Path) -> None:
        shutil.copytree(self.model, output)
        passport = Passport(
            source=Source(name=self.model.name, digest=source_digest(self.model)),
            recipe={"name": "a typo in every rule"},
            linears={"lm_head": LinearEntry(component="head", kept_reason="no rule matches it")},
            sizes=Sizes(source_bytes=weight_bytes(self.model), bytes=weight_bytes(output)),
            files=digest_files(output, model_files(output)),
        )
        write_passport(output, passport)

    def copied(self, change: Callable[[Path], None]) -> Callable[[Path], None]:
        def make(output: Path) -> None:
            shutil.copytree(self.honest, output)
            change(output)

        return make

    def noise(self, output: Path) -> None:
        rendered = CalibrationSet.from_rendered_tasks(32)
        rng = np.random.default_rng(0)
        samples = tuple(
            replace(sample, picture=Image.fromarray(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)))
            for sample in rendered.samples
        )
        try:
            self.compress(output, "w8a16", CalibrationSet(samples, "noise"))
        except CalibrationUnfitError as error:
            print("compression itself refuses noise:", error)
        else:
            raise SystemExit("compression took noise for pictures")
        self.compress(output, "w8a16", UncheckedPairs(samples, "noise"))


def cut(directory: Path) -> None:
    weights = max(directory.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size - 4096)


def edit_passport(directory: Path) -> None:
    path = directory / "passport.json"
    record = json.loads(path.read_text())
    record["calibration"] = None
    path.write_text(json.dumps(record))


def flip_a_bit(directory: Path) -> None:
    weights = max(directory.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    with weights.open("r+b") as file:
        file.seek(-1000, 2)
        byte = file.read(1)[0]
        file.seek(-1000, 2)
        file.write(bytes([byte ^ 1]))


def cases(maker: Maker) -> list[Case]:
    return [
        Case("a tower quantised to garbage", maker.garbage_tower, "all tasks: "),
        Case("a zeroed projector", maker.blind, "the model answers without looking"),
        Case("no layer quantised", maker.untouched, "none of the"),
        Case("a truncated file", maker.copied(cut), "bytes"),
        Case("an edited passport", maker.copied(edit_passport), "changed after it was written"),
        Case("other weights than listed", maker.copied(flip_a_bit), "SHA-256"),
        Case("calibration on noise", maker.noise, "calibration: unfit"),
    ]


def main() -> None:
    from harness.record import write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the artefacts, 2 GB")
    parser.add_argument("--honest", type=Path, help="an INT8 model with its verdict, as `foveal prove` leaves it")
    parser.add_argument("--recipe", default="w8a16", help="of the honest model")
    parser.add_argument("--suite", choices=("default", "quick"), default="default", help="for the honest model")
    parser.add_argument("--easy-vqa", default="auto")
    parser.add_argument("--text", default="auto")
    options = parser.parse_args()
    console = Console()
    options.folder.mkdir(parents=True, exist_ok=True)

    def judged(candidate: Path, suite: Suite) -> Proof:
        return prove(candidate, options.model, suite, running=False)

    def suite(name: str) -> Suite:
        return resolve_suite(DEFAULT if name == "default" else QUICK, easy_vqa=options.easy_vqa, text=options.text)

    honest = options.honest or options.folder / "honest"
    maker = Maker(options.model, honest)
    figures: dict[str, Any] = {}
    if options.honest:
        require_accepted(verify(honest), honest)  # raises IntegrityError
        figures["honest INT8"] = {"accepted": True, "as_wanted": True, "reasons": ["as proved before"]}
    else:
        shutil.rmtree(honest, ignore_errors=True)
        maker.compress(honest, options.recipe, calibration_for(load_recipe(options.recipe).calibration))
        proof = judged(honest, suite(options.suite))
        figures["honest INT8"] = _row(proof, proof.verdict.accepted)
    _say(console, "honest INT8", figures["honest INT8"], "accepted")
    small = suite("quick")
    for case in cases(maker):
        directory = options.folder / "broken"
        shutil.rmtree(directory, ignore_errors=True)
        case.make(directory)
        proof = judged(directory, small)
        reasons = " | ".join(proof.verdict.reasons)
        figures[case.name] = _row(proof, not proof.verdict.accepted and case.reason in reasons)
        _say(console, case.name, figures[case.name], "rejected")
    shutil.rmtree(options.folder / "broken", ignore_errors=True)
    console.print(f"written to {write_result('acceptance_compress_04_gate', figures)}")
    if not all(row["as_wanted"] for row in figures.values()):
        raise SystemExit("the gate did not judge as it must")


def _row(proof: Proof, as_wanted: bool) -> dict[str, Any]:
    return {
        "accepted": proof.verdict.accepted,
        "as_wanted": as_wanted,
        "checks": len(proof.verdict.findings),
        "reasons": list(proof.verdict.reasons),
    }


def _say(console: Console, name: str, row: dict[str, Any], wanted: str) -> None:
    mark = "PASS" if row["as_wanted"] else "FAIL"
    console.print(f"{mark} {name}: {'accepted' if row['accepted'] else 'rejected'} (must be {wanted})", highlight=False)
    for reason in row["reasons"][:6]:
        console.print(f"     {reason}", style="dim", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
