"""foveal run MODEL "question" --image a.png"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from foveal.cli import engine_options as flags
from foveal.cli.session import ask, read_image, timing_line
from foveal.core.sampling_params import SamplingParams
from foveal.engine.async_engine import AsyncEngine
from foveal.engine.config import EngineConfig

__all__ = ["command"]

command = typer.Typer(add_completion=False)


@command.command()
def run(
    model: flags.Model,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    image: Annotated[list[Path] | None, typer.Option("--image", "-i", help="A picture; repeat for several.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 always takes the most likely token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    dtype: flags.Dtype = "auto",
    decoder: flags.Decoder = "auto",
    quantize: flags.Quantize = "none",
    kv_dtype: flags.KvDtype = "auto",
    speculate: flags.Speculate = None,
    threads: flags.Threads = None,
    require_passport: flags.RequirePassport = False,
    require_verdict: flags.RequireVerdict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Ask one question, about pictures or not.

    Example: foveal run .demo/foveal-demo --image examples/images/shapes.png "How many circles are there?"
    """
    images = [read_image(path) for path in image or []]
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed)
    config = EngineConfig(
        model=model,
        dtype=dtype,
        decoder=decoder,
        quantize=quantize,
        kv_dtype=kv_dtype,
        speculate=speculate,
        num_threads=threads,
        require_passport=require_passport,
        require_verdict=require_verdict,
        max_num_seqs=1,
        preprocess_workers=1,  # type: ignore[arg-type]
    )
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": question}]
    console = Console()

    async def session() -> None:
        with Console(stderr=True).status(f"Loading {config.model_name}"):
            engine = AsyncEngine(config)
            await engine.start()
        try:
            out = None if as_json else console
            answer = await ask(engine, [{"role": "user", "content": content}], images, sampling, out)
        finally:
            await engine.stop()
        if as_json:
            print(json.dumps({**asdict(answer), "tokens_per_s": answer.tokens_per_s}))
        else:
            console.print(timing_line(answer), style="dim")

    asyncio.run(session())
