"""foveal bench: serve here, the others in files of their own."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from foveal.cli.bench_ablation import ablation
from foveal.cli.bench_engine import engine
from foveal.cli.bench_peers import peers
from foveal.cli.bench_table import report_table
from foveal.core.errors import ConfigurationError
from foveal.evaluation.load.arrival import arrival_offsets
from foveal.evaluation.load.dataset import WorkloadConfig, parse_priority_mix
from foveal.evaluation.load.pictures import PictureSource, directory_pictures, random_pictures
from foveal.evaluation.load.record import RequestRecord
from foveal.evaluation.load.report import LatencySla, summarise
from foveal.evaluation.load.session import LoadPlan, LoadSession

__all__ = ["bench_app", "command"]

command = bench_app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Measure a server, the engine, other engines."
)
bench_app.command("engine")(engine)
bench_app.command("peers")(peers)
bench_app.command("ablation")(ablation)


@bench_app.callback()
def _group() -> None:
    """Measure a server, the engine, other engines."""


@bench_app.command("serve")
def serve(
    url: Annotated[str, typer.Argument(help="Address of an OpenAI-compatible server, http://localhost:8000 for one.")],
    model: Annotated[str | None, typer.Option(help="Model id; default is the first that the server lists.")] = None,
    request_rate: Annotated[
        float | None, typer.Option(help="Open loop: requests per second, Poisson; inf sends all at once.")
    ] = None,
    burstiness: Annotated[float, typer.Option(help="Open loop: below 1 requests clump, above 1 they even out.")] = 1.0,
    concurrency: Annotated[
        int | None, typer.Option(help="Closed loop: requests in flight. Default 1 unless --request-rate is given.")
    ] = None,
    num_requests: Annotated[
        int | None, typer.Option(help="Stop after so many. Default 100 without a duration.")
    ] = None,
    duration_s: Annotated[float | None, typer.Option(help="Send no more requests after so many seconds.")] = None,
    input_tokens: Annotated[int, typer.Option(help="Tokens of text per prompt.")] = 256,
    output_tokens: Annotated[int, typer.Option(help="Tokens per answer (max_tokens).")] = 64,
    length_spread: Annotated[float, typer.Option(help="0.2 draws lengths uniformly within 20 % of these.")] = 0.0,
    shared_prefix_tokens: Annotated[int, typer.Option(help="Tokens that all prompts begin with.")] = 0,
    images: Annotated[str, typer.Option(help="none, random (drawn), or a directory of pictures.")] = "none",
    image_size: Annotated[str, typer.Option(help="Size of drawn pictures in pixels, WxH.")] = "336x336",
    images_per_request: Annotated[int, typer.Option(help="Pictures in each request.")] = 1,
    image_reuse: Annotated[float, typer.Option(help="Fraction of pictures that were sent before.")] = 0.0,
    priority_mix: Annotated[str, typer.Option(help="Weights of X-Priority, for example P0=0.1,P1=0.6,P2=0.3.")] = "",
    ignore_eos: Annotated[bool, typer.Option(help="Make every answer as long as asked for.")] = True,
    temperature: Annotated[float, typer.Option(help="0 always takes the most likely token.")] = 0.0,
    ttft_sla_ms: Annotated[float | None, typer.Option(help="Goodput: most ms to the first token.")] = None,
    tpot_sla_ms: Annotated[float | None, typer.Option(help="Goodput: most ms per output token after it.")] = None,
    e2e_sla_ms: Annotated[float | None, typer.Option(help="Goodput: most ms for a whole answer.")] = None,
    warmup: Annotated[int, typer.Option(help="Requests sent before, one by one, that do not count.")] = 1,
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests at the same times.")] = 0,
    timeout_s: Annotated[float, typer.Option(help="Give up on a request after so many seconds.")] = 600.0,
    api_key: Annotated[str | None, typer.Option(help="Sent as a bearer token.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write settings and results to this file.")] = None,
) -> None:
    """Send chat completions to a server and report latency, throughput, errors and goodput.

    Example: foveal bench serve http://localhost:8000 --concurrency 16 --num-requests 64 --images random

    Example: foveal bench serve http://localhost:8000 --request-rate 4 --duration-s 60 --ttft-sla-ms 500
    """
    settings = dict(locals())
    plan = LoadPlan(
        workload=WorkloadConfig(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            length_spread=length_spread,
            shared_prefix_tokens=shared_prefix_tokens,
            images_per_request=0 if images == "none" else images_per_request,
            priority_mix=parse_priority_mix(priority_mix),
        ),
        pictures=_pictures(images, image_size, image_reuse),
        seed=seed,
        warmup=warmup,
    )
    plan = _with_schedule(plan, request_rate, burstiness, concurrency, num_requests, duration_s)
    console = Console()
    session = LoadSession(
        url,
        model=model,
        ignore_eos=ignore_eos,
        temperature=temperature,
        timeout_s=timeout_s,
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
    )
    records = _run(session, plan, console)
    report = summarise(records, LatencySla(ttft_sla_ms, tpot_sla_ms, e2e_sla_ms))
    console.print(report_table(report, title=f"{session.model} at {url}"))
    if json_file is not None:
        del settings["api_key"]
        settings |= {"json_file": str(json_file), "model": session.model}
        document = {"settings": settings, "results": report.as_dict()}
        json_file.write_text(json.dumps(document, indent=2, default=str) + "\n")
        console.print(f"written to {json_file}")
    if not report.num_ok:
        raise typer.Exit(1)


def _with_schedule(
    plan: LoadPlan,
    request_rate: float | None,
    burstiness: float,
    concurrency: int | None,
    num_requests: int | None,
    duration_s: float | None,
) -> LoadPlan:
    """Add when to send: an open loop if there is a rate, else a closed one."""
    if request_rate is not None and concurrency is not None:
        raise ConfigurationError(
            "--request-rate is an open loop and --concurrency a closed one; give one of them. "
            "In an open loop the server's speed decides how many requests are in flight."
        )
    if num_requests is None and duration_s is None:
        num_requests = 100
    for name, value in (("--num-requests", num_requests), ("--duration-s", duration_s), ("--concurrency", concurrency)):
        if value is not None and not value > 0:
            raise ConfigurationError(f"{name} is {value:g}; it must be above 0")
    if request_rate is None:
        return replace(plan, concurrency=concurrency or 1, num_requests=num_requests, duration_s=duration_s)
    rng = random.Random(f"arrival {plan.seed}")
    offsets = arrival_offsets(
        request_rate, rng, burstiness=burstiness, num_requests=num_requests, duration_s=duration_s
    )
    return replace(plan, offsets_s=offsets, num_requests=len(offsets))


def _pictures(images: str, image_size: str, reuse: float) -> PictureSource | None:
    if images == "none":
        return None
    if images != "random":
        return PictureSource(directory_pictures(Path(images)), reuse)
    try:
        width, height = (int(side) for side in image_size.lower().split("x"))
    except ValueError:
        raise ConfigurationError(f"--image-size is {image_size!r}; write WxH in pixels, for example 336x336") from None
    return PictureSource(random_pictures(width, height), reuse)


def _run(session: LoadSession, plan: LoadPlan, console: Console) -> list[RequestRecord]:
    """Run with a progress bar. Ctrl-C ends the run early and keeps what was measured."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    records: list[RequestRecord] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("probing", total=plan.num_requests)
        on_record = _collector(records, lambda text: progress.update(task, advance=1, description=text))
        try:
            asyncio.run(session.run(plan, on_record))
        except KeyboardInterrupt:
            console.print(f"interrupted after {len(records)} requests; those in flight are not counted")
    return records


def _collector(records: list[RequestRecord], show: Callable[[str], None]) -> Callable[[RequestRecord], None]:
    num_failed = 0

    def on_record(record: RequestRecord) -> None:
        nonlocal num_failed
        records.append(record)
        num_failed += not record.ok
        latest = math.nan if record.ttft_s is None else 1e3 * record.ttft_s
        show(f"TTFT {latest:.0f} ms" + (f", [red]{num_failed} failed[/]" if num_failed else ""))

    return on_record
