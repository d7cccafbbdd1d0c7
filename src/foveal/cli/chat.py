"""foveal chat MODEL --image cat.png"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.prompt import Prompt

from foveal.cli import engine_options as flags
from foveal.cli.session import ask, read_image, timing_line
from foveal.core.errors import FovealError
from foveal.core.sampling_params import SamplingParams
from foveal.engine.async_engine import AsyncEngine
from foveal.engine.config import EngineConfig

__all__ = ["command"]

command = typer.Typer(add_completion=False)

_HELP = "/image PATH adds a picture to your next message, /reset forgets the conversation, /exit leaves (or Ctrl-D)."


class Conversation:
    """Messages so far, and the pictures that wait for the next one."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.images: list[bytes] = []
        self._waiting: list[bytes] = []

    def attach(self, path: Path) -> None:
        self._waiting.append(read_image(path))

    def say(self, text: str) -> None:
        parts = [{"type": "image"}] * len(self._waiting) + [{"type": "text", "text": text}]
        self.messages.append({"role": "user", "content": parts})
        self.images += self._waiting
        self._waiting = []

    def answer(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})

    def take_back(self) -> None:
        """Remove the last user message with its pictures, after a failure."""
        count = sum(part["type"] == "image" for part in self.messages.pop()["content"])
        if count:
            self._waiting = self.images[-count:] + self._waiting
            del self.images[-count:]


@command.command()
def chat(
    model: flags.Model,
    image: Annotated[list[Path] | None, typer.Option("--image", "-i", help="A picture for the first message.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens per answer.")] = 512,
    temperature: Annotated[float, typer.Option(help="0 always takes the most likely token.")] = 0.0,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    dtype: flags.Dtype = "auto",
    quantize: flags.Quantize = "none",
    kv_dtype: flags.KvDtype = "auto",
    speculate: flags.Speculate = None,
    threads: flags.Threads = None,
    require_passport: flags.RequirePassport = False,
    require_verdict: flags.RequireVerdict = False,
) -> None:
    """Talk with a model in the terminal.

    Example: foveal chat .demo/foveal-demo --image examples/images/chart.png
    """
    config = EngineConfig(
        model=model,
        dtype=dtype,  # type: ignore[arg-type]
        quantize=quantize,  # type: ignore[arg-type]
        kv_dtype=kv_dtype,  # type: ignore[arg-type]
        speculate=speculate,
        num_threads=threads,
        max_num_seqs=1,
        preprocess_workers=1,
        require_passport=require_passport,
        require_verdict=require_verdict,
    )
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature)
    console = Console()
    conversation = Conversation()
    for path in image or []:
        conversation.attach(path)

    def reset() -> None:
        nonlocal conversation
        conversation = Conversation()
        if system:
            conversation.messages.append({"role": "system", "content": system})

    async def turn(engine: AsyncEngine, line: str) -> None:
        conversation.say(line)
        try:
            answer = await ask(engine, conversation.messages, conversation.images, sampling, console)
        except FovealError as error:
            conversation.take_back()
            console.print(f"[red]error:[/] {error}", highlight=False)
            return
        conversation.answer(answer.text)
        console.print(timing_line(answer), style="dim")

    async def session() -> None:
        with console.status(f"Loading {config.model_name}"):
            engine = AsyncEngine(config)
            await engine.start()
        console.print(_HELP, style="dim")
        try:
            while True:
                try:
                    line = (await asyncio.to_thread(Prompt.ask, "[bold cyan]you[/]", console=console)).strip()
                except EOFError:
                    break
                if line in ("/exit", "/quit"):
                    break
                if line == "/reset":
                    reset()
                elif line.startswith("/image "):
                    try:
                        conversation.attach(Path(line.removeprefix("/image ").strip()).expanduser())
                    except FovealError as error:
                        console.print(f"[red]error:[/] {error}", highlight=False)
                elif line.startswith("/"):
                    console.print(_HELP, style="dim")
                elif line:
                    await turn(engine, line)
        finally:
            await engine.stop()

    if system:
        conversation.messages.append({"role": "system", "content": system})
    try:
        asyncio.run(session())
    except KeyboardInterrupt:
        console.print()
