"""foveal compress MODEL --recipe w4a16-gptq --output DIR"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from foveal.cli import engine_options as flags

__all__ = ["command"]

command = typer.Typer(add_completion=False)


@command.command()
def compress(
    model: Annotated[Path, typer.Argument(help="Checkpoint directory.", metavar="MODEL")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write; it appears when it is complete.")],
    recipe: Annotated[
        str,
        typer.Option(
            help="A preset, a YAML file, or auto: bits chosen by measured sensitivity under the limits below."
        ),
    ] = "auto",
    budget: Annotated[
        str | None, typer.Option(help="auto: size of the whole model, 60% (of it in 16 bits), 90MB or 85MiB.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="auto: most memory for weights, 90MB for one.")] = None,
    token_latency_ms: Annotated[
        float | None, typer.Option(help="auto: most milliseconds per output token of one request on this machine.")
    ] = None,
    quality_floor: Annotated[float, typer.Option(help="auto: least share of the accuracy that must remain.")] = 0.98,
    checkpoint_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="compressed-tensors, gptq, awq or bnb-nf4.  [default: the recipe's]", show_default=False
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="rendered (our drawn tasks), none, or a file with one {image, question, answer} per line.  "
            "[default: the recipe's, none where no method needs data]",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Image-text pairs to use.  [default: the recipe's]", show_default=False)
    ] = None,
    texts: Annotated[
        int | None,
        typer.Option(
            help="Texts without a picture to add, at most one for two pairs.  [default: the recipe's]",
            show_default=False,
        ),
    ] = None,
    texts_from: Annotated[
        str | None,
        typer.Option(
            help="wiki-summaries (English, fetched once), own (the model writes them), or a text file.  "
            "[default: the recipe's]",
            show_default=False,
        ),
    ] = None,
    kept_dtype: Annotated[
        str,
        typer.Option(help="What stays unquantised: auto (float16 for a float32 model), float16, bfloat16, float32."),
    ] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Take up finished blocks of a killed run.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing model directory.")] = False,
    threads: flags.Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Make a model smaller and write it with a passport that says what was done to every layer.

    Example: foveal compress .demo/foveal-demo --recipe w4a16-gptq --output .demo/foveal-demo-w4a16-gptq

    Example: foveal compress .demo/foveal-demo --budget 45% --output .demo/foveal-demo-45
    """
    import torch

    from foveal.compression.calibration import CalibrationSample
    from foveal.compression.formats.registry import DEFAULT_FORMAT
    from foveal.compression.recipe import CalibrationPlan
    from foveal.core.errors import ConfigurationError
    from foveal.evaluation.text_corpus import evaluation_cache_dir
    from foveal.pipeline.calibration_texts import calibration_texts
    from foveal.pipeline.compress import CompressionJob, calibration_for, check_places, compress_model
    from foveal.pipeline.recipe_choice import PROBED_TEXTS, RecipeWish, choose

    if kept_dtype not in ("auto", "float16", "bfloat16", "float32"):
        raise ConfigurationError(f"--kept-dtype is {kept_dtype!r}; it must be auto, float16, bfloat16 or float32")
    if samples is not None and samples < 1:
        raise ConfigurationError(f"--samples is {samples}; it must be at least 1")
    if texts is not None and texts < 0:
        raise ConfigurationError(f"--texts is {texts}; it must be 0 (none) or more")
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console(stderr=True)

    def planned(plan: CalibrationPlan) -> CalibrationPlan:
        source = {"rendered": "rendered-tasks", None: plan.source}.get(calibration, calibration)
        return replace(
            plan,
            source=str(source),
            samples=plan.samples if samples is None else samples,
            texts=plan.texts if texts is None else texts,
            texts_from=plan.texts_from if texts_from is None else texts_from,
        )

    check_places(model, output, checkpoint_format or DEFAULT_FORMAT, force=force)
    wish = RecipeWish(recipe, budget, memory, token_latency_ms, quality_floor)
    own_pairs = None
    probed: tuple[CalibrationSample, ...] = ()
    if wish.is_measured:
        asked = planned(CalibrationPlan())
        if calibration not in (None, "rendered", "none"):
            own_pairs = calibration_for(asked)
        probed = calibration_texts(asked.texts_from, model, min(asked.texts, PROBED_TEXTS))
    with _bar(console) as bar:
        measuring = bar.add_task("recipe", total=None, visible=wish.is_measured)
        chosen = choose(
            wish,
            model,
            calibration=own_pairs,
            texts=probed,
            cache_dir=evaluation_cache_dir() / "sensitivity",
            progress=lambda done, total, name: bar.update(
                measuring, completed=done, total=total, description=f"measuring {name}"
            ),
        )
        plan = planned(chosen.recipe.calibration)
        wanted = replace(chosen.recipe, calibration=plan, format=checkpoint_format or chosen.recipe.format)  # type: ignore[arg-type]
        for line in (*chosen.reasons, *wanted.warnings):
            bar.console.print(Text(line, style="dim"), soft_wrap=True)
        # Without need for data it would only measure each layer's loss, at ten times the time: on request.
        idle = not wanted.needs_calibration and (calibration, samples, texts, texts_from) == (None,) * 4
        pairs = None if calibration == "none" or idle else calibration_for(plan, model)
        job = CompressionJob(
            model,
            wanted,
            output,
            pairs,
            None if kept_dtype == "auto" else kept_dtype,
            resume,
            force,  # type: ignore[arg-type]
        )
        work = bar.add_task("compressing", total=None)
        passport = compress_model(
            job, lambda what, done, total: bar.update(work, description=what, completed=done, total=total)
        )
    record: dict[str, Any] = {
        "output": str(output),
        "passport_digest": passport.digest,
        "recipe": wanted.name,
        "quantised_linears": passport.quantised_linears,
        "linears": len(passport.linears),
        "bytes": passport.sizes.bytes,
        "source_bytes": passport.sizes.source_bytes,
    }
    if as_json:
        print(json.dumps(record))
        return
    console.print(
        f"{output}: {passport.sizes.bytes / 1e6:,.1f} MB of {passport.sizes.source_bytes / 1e6:,.1f} MB, "
        f"{passport.quantised_linears} of {len(passport.linears)} layers quantised. "
        f"Next: foveal prove {output} --against {model}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _bar(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)
