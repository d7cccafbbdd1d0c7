"""foveal serve MODEL --port 8000"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from foveal.cli import engine_options as flags
from foveal.core.collector import calm_collector
from foveal.core.errors import ConfigurationError
from foveal.engine.async_engine import AsyncEngine
from foveal.engine.config import EngineConfig
from foveal.engine.ipc import Ready
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.runner import Server
from foveal.observability.logs import configure_logging
from foveal.protocol.remote_image.fetch_config import FetchConfig

__all__ = ["command", "serve_engine"]

command = typer.Typer(add_completion=False)
MIB = 1 << 20


@command.command()
def serve(
    model: flags.Model,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="Name that requests use; repeat for several.  [default: the directory's]")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="FOVEAL_API_KEY", help="Require `Authorization: Bearer KEY` on /v1.", show_envvar=True),
    ] = None,
    dtype: flags.Dtype = "auto",
    decoder: flags.Decoder = "auto",
    quantize: flags.Quantize = "none",
    kv_dtype: flags.KvDtype = "auto",
    max_model_len: flags.MaxModelLen = None,
    max_num_seqs: flags.MaxNumSeqs = 64,
    max_num_batched_tokens: flags.MaxBatchedTokens = 512,
    target_tpot_ms: flags.TargetTpotMs = None,
    target_ttft_ms: flags.TargetTtftMs = None,
    vision_wait_ms: flags.VisionWaitMs = 50.0,
    latency_model: flags.LatencyModel = "auto",
    num_kv_blocks: flags.KvBlocks = None,
    block_size: flags.BlockSize = 2,
    memory_utilization: flags.MemoryUtilization = 0.6,
    memory_limit_mib: flags.MemoryLimitMib = None,
    memory_guard: flags.MemoryGuard = True,
    enable_prefix_caching: flags.PrefixCaching = True,
    encoder_budget_tokens: Annotated[int, typer.Option(help="Most vision patches that one step encodes.")] = 8192,
    feature_cache_mib: Annotated[int, typer.Option(help="Image features kept for reuse, MiB.")] = 256,
    batching: flags.Batching = "continuous",
    kv_cache: flags.KvCache = True,
    speculate: flags.Speculate = None,
    speculate_tokens: flags.SpeculateTokens = 8,
    speculate_adaptive: flags.SpeculateAdaptive = True,
    draft_vocabulary: flags.DraftVocabulary = 16384,
    threads: flags.Threads = None,
    require_passport: flags.RequirePassport = False,
    require_verdict: flags.RequireVerdict = False,
    preprocess_workers: Annotated[int, typer.Option(help="Processes that decode pictures and tokenise.")] = 2,
    max_waiting: Annotated[int, typer.Option(help="Requests queued in the engine before new ones get 503.")] = 1024,
    max_concurrent_requests: Annotated[
        int, typer.Option(help="Requests at the same time before new ones get 503.")
    ] = 512,
    max_images: Annotated[int, typer.Option("--max-images", help="Pictures per request.")] = 16,
    max_image_pixels: Annotated[
        int, typer.Option(help="Pixels of one picture, checked before it is decoded.")
    ] = 40_000_000,
    max_image_mib: Annotated[int, typer.Option(help="Encoded size of one picture, MiB.")] = 20,
    max_body_mib: Annotated[int, typer.Option(help="Size of one request body, MiB.")] = 64,
    request_timeout: Annotated[float, typer.Option(help="Seconds from the complete body to the last byte.")] = 300.0,
    drain_grace: Annotated[float, typer.Option(help="Seconds that running requests get after SIGTERM.")] = 30.0,
    fetch: Annotated[bool, typer.Option("--fetch/--no-fetch", help="Fetch pictures of http(s) URLs.")] = True,
    fetch_timeout: Annotated[float, typer.Option(help="Seconds for one picture, redirects included.")] = 10.0,
    fetch_allowed_domain: Annotated[
        list[str] | None, typer.Option(help="Only these domains and their subdomains; repeat.")
    ] = None,
    fetch_any_port: Annotated[bool, typer.Option("--fetch-any-port", help="Allow URLs with unusual ports.")] = False,
    fetch_allow_private: Annotated[
        bool, typer.Option("--fetch-allow-private", help="Allow private addresses. Only where every client is trusted.")
    ] = False,
    otlp_endpoint: Annotated[
        str | None, typer.Option(help="Send traces there over OTLP/HTTP, for example http://localhost:4318/v1/traces.")
    ] = None,
    trace_sample_ratio: Annotated[
        float, typer.Option(help="Fraction of requests to trace, where the client has not decided.")
    ] = 0.01,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_format: Annotated[str, typer.Option(help="text, or json with one object per line.")] = "text",
) -> None:
    """Serve a model through an OpenAI-compatible API.

    Example: foveal serve .demo/foveal-demo --port 8000
    """
    names = tuple(served_model_name or ())
    engine_config = EngineConfig(
        model=model,
        served_model_name=names[0] if names else None,
        dtype=dtype,  # type: ignore[arg-type]
        decoder=decoder,  # type: ignore[arg-type]
        quantize=quantize,  # type: ignore[arg-type]
        kv_dtype=kv_dtype,  # type: ignore[arg-type]
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        target_tpot_ms=target_tpot_ms,
        target_ttft_ms=target_ttft_ms,
        vision_wait_ms=vision_wait_ms,
        latency_model=latency_model,
        num_kv_blocks=num_kv_blocks,
        block_size=block_size,
        memory_utilization=memory_utilization,
        memory_limit_mib=memory_limit_mib,
        memory_guard=memory_guard,
        enable_prefix_caching=enable_prefix_caching,
        encoder_budget_tokens=encoder_budget_tokens,
        feature_cache_bytes=feature_cache_mib * MIB,
        max_waiting=max_waiting,
        batching=batching,  # type: ignore[arg-type]
        kv_cache=kv_cache,
        speculate=speculate,
        speculate_tokens=speculate_tokens,
        speculate_adaptive=speculate_adaptive,
        draft_vocabulary=draft_vocabulary or None,
        num_threads=threads,
        require_passport=require_passport,
        require_verdict=require_verdict,
        preprocess_workers=preprocess_workers,
        max_images_per_request=max_images,
        max_image_pixels=max_image_pixels,
        log_level=log_level,
        log_format=log_format,  # type: ignore[arg-type]
    )
    server_config = ServerConfig(
        host=host,
        port=port,
        served_model_names=names or (engine_config.model_name,),
        api_key=api_key,
        max_body_bytes=max_body_mib * MIB,
        max_images=max_images,
        max_image_bytes=max_image_mib * MIB,
        max_image_pixels=max_image_pixels,
        max_concurrent_requests=max_concurrent_requests,
        request_timeout_s=request_timeout,
        drain_grace_s=drain_grace,
        otlp_endpoint=otlp_endpoint,
        trace_sample_ratio=trace_sample_ratio,
        fetch=FetchConfig(
            enabled=fetch,
            allow_private=fetch_allow_private,
            allowed_domains=tuple(fetch_allowed_domain or ()),
            allowed_ports=() if fetch_any_port else FetchConfig().allowed_ports,
            timeout_s=fetch_timeout,
        ),
    )
    try:
        configure_logging(log_level, log_format)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    raise typer.Exit(uvloop.run(serve_engine(engine_config, server_config, Console(stderr=True))))


async def serve_engine(engine_config: EngineConfig, server_config: ServerConfig, console: Console) -> int:
    """Listen at once, load meanwhile: /live answers, /ready is 503 until the engine has warmed up. Returns the exit status."""
    engine = AsyncEngine(engine_config)
    server = Server(engine, server_config)
    urls: list[str] = []
    serving = asyncio.create_task(server.run(urls.append))
    loading = asyncio.create_task(engine.start())
    try:
        await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():  # the port is taken, or a signal came while loading
            return serving.result()
        try:
            console.print(_ready_line(server_config, urls[0], loading.result()), highlight=False)
            calm_collector()
        except BaseException:
            server.request_stop()
            await serving
            raise
        return await serving
    finally:
        if not loading.done():
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        await engine.stop()


def _ready_line(config: ServerConfig, url: str, ready: Ready) -> str:
    return (
        f"[bold green]ready[/] {config.served_model_names[0]} on {url}  ({ready.dtype}, {ready.decoder} decoder, "
        f"{ready.max_model_len:,} tokens of context, {ready.num_kv_blocks:,} KV blocks = {ready.kv_bytes / MIB:,.0f} MiB, "
        f"loaded in {ready.load_s:.1f} s)"
    )
