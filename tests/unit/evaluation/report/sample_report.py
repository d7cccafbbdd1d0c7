"""A report from made-up data with everything in it: long names, failures, pictures, several candidates."""

from __future__ import annotations

import base64
import io
import random
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from foveal.artifacts.passport import LinearEntry
from foveal.evaluation.evaluation_result import Agreement, Divergence, Evaluation, MeasuredModel, SampleAnswer, Speed
from foveal.evaluation.gate import judge
from foveal.evaluation.report.content import Candidate, ReportContent
from foveal.evaluation.report.page import write_report
from foveal.evaluation.tasks.catalogue import make_item
from unit.evaluation.evaluations import degrade, make_base, make_passport, sight

HOSTILE = "</dd><script>alert(1)</script><img src=https://evil.example/x onerror=alert(1)>"


def png_base64(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def make_samples(count: int = 8) -> tuple[SampleAnswer, ...]:
    samples = []
    for index in range(count):
        kind = ("shapes", "bars", "relations", "text")[index % 4]
        item = make_item(kind, "held-out", index)
        question = item.questions[0]
        answer = str(question.answer)
        candidate = answer if index % 3 else "a long answer that goes on and on without ever coming to the point " * 2
        samples.append(
            SampleAnswer(
                task=kind,
                question=question.text,
                reference=answer,
                base=answer,
                candidate=candidate,
                image_png_base64=png_base64(item.picture()),
            )
        )
    samples.append(SampleAnswer(task="text", question="Two and two?", reference="four", base="four", candidate=HOSTILE))
    return tuple(samples)


def make_linears() -> dict[str, LinearEntry]:
    rng = random.Random(5)
    linears = {}
    for tower, component, count in (("vision_tower", "vision", 12), ("language_model", "attention", 30)):
        for layer in range(count):
            for part in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"):
                kind = component if component == "vision" or part[1] == "_" else "ffn"
                sqnr = (34 if kind == "vision" else 20 if kind == "attention" else 18.5) + rng.gauss(0, 1.2)
                linears[f"model.{tower}.layers.{layer}.{part}"] = LinearEntry(
                    component=kind,
                    scheme="int8" if kind == "vision" else "int4-g64",
                    method="rtn" if kind == "vision" else "gptq",
                    bits=8 if kind == "vision" else 4,
                    bytes_before=2 * 576 * 576,
                    bytes_after=int((1.02 if kind == "vision" else 0.56) * 576 * 576),
                    loss=0.6 + 0.2 * rng.random(),
                    rtn_loss=1.0,
                    sqnr_db=sqnr,
                    theory_sqnr_db=35.0 if kind == "vision" else 20.5,
                    note="group 128 does not divide 576: 64" if kind != "vision" else None,
                )
    linears["model.multi_modal_projector.linear_1"] = LinearEntry(component="projector", kept_reason="policy: 16 bit")
    linears["lm_head"] = LinearEntry(component="head", kept_reason="tied to the embedding, which is kept")
    return linears


def make_content(*, rejected: bool = False) -> ReportContent:
    base = replace(make_base(questions=240), size_bytes=314_000_000, machine="2 cores, no accelerator")
    base = replace(
        base, speed=Speed(encode_ms=41.0, prefill_tok_s=410, decode_tok_s=31.0), peak_memory_bytes=910_000_000
    )
    base = replace(base, model=replace(base.model, name="foveal-demo"))
    passport = make_passport(linears=make_linears())

    def candidate(name: str, size: float, *, flipped: float, rise: float, lost: float = 0.0) -> Evaluation:
        found = degrade(base, flipped=flipped, rise=rise, lost=lost, digest=passport.model_digest, seed=len(name))
        return replace(found, model=MeasuredModel(name=name, digest=passport.model_digest), size_bytes=int(size * 1e6))

    subject = replace(
        candidate("foveal-demo-vlm-mixed-90MB", 128, flipped=0.03, rise=0.012, lost=0.12 if rejected else 0.0),
        samples=make_samples(),
        agreement=Agreement(greedy_exact=0.93, top1=0.971, items=400),
        kl=Divergence(mean=0.0213, p99=0.41, positions=2000),
        speed=Speed(encode_ms=39.5, prefill_tok_s=420, decode_tok_s=44.0),
        peak_memory_bytes=602_000_000,
        not_measured={"energy": "this machine has no counter"},
    )
    if rejected:
        subject = replace(subject, image_sensitivity=sight(0.04, kl=0.02))
    others = (
        candidate("w8a8", 168, flipped=0.01, rise=0.002),
        candidate("w4a16-gptq", 121, flipped=0.04, rise=0.021),
        candidate("w4a16-awq", 123, flipped=0.04, rise=0.026),
        candidate("nf4", 119, flipped=0.05, rise=0.034),
        candidate("rtn-4bit", 118, flipped=0.08, rise=0.09, lost=0.05),
    )
    judged = [Candidate(evaluation=e, verdict=judge(e, base, passport), passport=passport) for e in (subject, *others)]
    return ReportContent(base=base, candidate=judged[0], others=(*judged[1:-1], replace(judged[-1], verdict=None)))


if __name__ == "__main__":  # python -m unit.evaluation.report.sample_report DIRECTORY: pages to look at
    for name, is_rejected in (("accepted", False), ("rejected", True)):
        print(write_report(Path(sys.argv[1]) / f"report-{name}.html", make_content(rejected=is_rejected)))
