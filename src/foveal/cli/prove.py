"""foveal prove CANDIDATE --against BASE"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from foveal.cli import engine_options as flags
from foveal.cli import suite_options as suite_flags
from foveal.cli.evaluation_tables import evaluation_tables, verdict_table
from foveal.core.errors import FovealError

if TYPE_CHECKING:
    from foveal.evaluation.report.content import Candidate
    from foveal.models.run_formats import RunFormats
    from foveal.pipeline.prove import Proof

__all__ = ["command"]

command = typer.Typer(add_completion=False)

REJECTED, FAILED = 1, 2


@command.command()
def prove(
    candidate: Annotated[Path, typer.Argument(help="Compressed model directory.", metavar="CANDIDATE")],
    against: Annotated[Path, typer.Option("--against", help="The model that it was made from.")],
    thresholds: Annotated[Path | None, typer.Option(help="YAML file with other limits than the default ones.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report that opens offline.")] = None,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Artefact proved before, to show in the report; repeat for several.")
    ] = None,
    quick: suite_flags.Quick = False,
    easy_vqa: suite_flags.EasyVqa = "auto",
    text: suite_flags.Text = "auto",
    seed: suite_flags.Seed = 0,
    reuse_base: Annotated[
        bool, typer.Option("--reuse-base/--no-reuse-base", help="Keep the base's answers for the next candidate.")
    ] = True,
    cache_dir: suite_flags.CacheDir = None,
    dtype: flags.Dtype = "auto",
    quantize: flags.Quantize = "none",
    kv_dtype: flags.KvDtype = "auto",
    threads: flags.Threads = None,
    all_checks: Annotated[bool, typer.Option("--all", help="Show passed checks too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print verdict and evaluations as one JSON object.")] = False,
) -> None:
    """Measure a compressed model against its base and accept or reject it; the verdict goes into its passport.

    With --quantize and --kv-dtype the candidate runs as a server with these options would run it; it may then be the base
    itself, to prove that serving it so costs nothing.

    Exit code 0: accepted; 1: rejected, with the reasons; 2: no verdict was possible.

    Example: foveal prove .demo/foveal-demo-w4a16-gptq --against .demo/foveal-demo --report report.html
    """
    progress = Console(stderr=True)
    try:
        suite_flags.refuse_unwritable(report)
        formats = suite_flags.run_formats(dtype, quantize, kv_dtype)
        others = _proved_before(beside or [])
        proof = _prove(
            candidate,
            against,
            thresholds,
            quick,
            easy_vqa,
            text,
            seed,
            reuse_base,
            cache_dir,
            formats,
            threads,
            progress,
        )
        # The verdict first: a report that cannot be written must not cost it.
        if as_json:
            print(json.dumps(_record(proof), indent=1))
        else:
            console = Console()
            if proof.candidate is not None:
                console.print(evaluation_tables(proof.candidate, proof.base))
            console.print(verdict_table(proof.verdict, everything=all_checks))
        if report is not None:
            _write_report(report, proof, candidate, against, others, progress)
    except FovealError as error:
        progress.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED) from None
    if not proof.verdict.accepted:
        raise typer.Exit(REJECTED)


def _prove(
    candidate: Path,
    against: Path,
    thresholds: Path | None,
    quick: bool,
    easy_vqa: str,
    text: str,
    seed: int,
    reuse_base: bool,
    cache_dir: Path | None,
    formats: RunFormats,
    threads: int | None,
    console: Console,
) -> Proof:
    import torch

    from foveal.evaluation.thresholds_file import read_thresholds
    from foveal.pipeline.prove import prove as run_proof

    if threads is not None:
        torch.set_num_threads(threads)
    limits = read_thresholds(thresholds) if thresholds is not None else None
    suite = suite_flags.make_suite(quick, seed, easy_vqa, text, cache_dir, console)
    with suite_flags.stages(console) as on_stage:
        return run_proof(
            candidate,
            against,
            suite,
            formats=formats,
            thresholds=limits,
            reuse_base=reuse_base,
            cache_dir=cache_dir,
            on_stage=on_stage,
        )


def _record(proof: Proof) -> dict[str, Any]:
    record: dict[str, Any] = {"verdict": proof.verdict.for_passport()}
    for name in ("candidate", "base"):
        evaluation = getattr(proof, name)
        record[name] = None if evaluation is None else msgspec.to_builtins(evaluation)
    return record


def _proved_before(directories: list[Path]) -> tuple[Candidate, ...]:
    """Read before anything is measured, so that a wrong one costs nothing."""
    if not directories:
        return ()
    from foveal.pipeline.proof_report import proved_before

    return tuple(map(proved_before, directories))


def _write_report(
    path: Path, proof: Proof, candidate: Path, base: Path, others: tuple[Candidate, ...], console: Console
) -> None:
    from foveal.evaluation.report.page import write_report
    from foveal.pipeline.proof_report import report_content

    write_report(path, report_content(proof, candidate, base, others))
    console.print(f"report: {escape(str(path))}", highlight=False)
