"""Put an engine loop together: load, size, allocate, warm up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import torch

from foveal.artifacts.verification import require_accepted, verify
from foveal.core.clock import Clock, MonotonicClock
from foveal.core.errors import ConfigurationError, PassportMissingError
from foveal.engine.build_latency import build_latency_control
from foveal.engine.build_speculator import build_speculator, load_draft
from foveal.engine.config import EngineConfig
from foveal.engine.execution.guided import GuideFactory
from foveal.engine.execution.kv_pool import allocate_kv_cache, blocks_that_fit, kv_block_bytes
from foveal.engine.execution.runner import Runner
from foveal.engine.execution.sampler import Sampler
from foveal.engine.loop import EngineLoop
from foveal.engine.memory.linux_memory import LinuxMemory
from foveal.engine.memory.memory_keeper import MemoryKeeper
from foveal.engine.memory.memory_needs import check_pool, check_weights, encoder_patch_bytes, working_bytes
from foveal.engine.memory.memory_reading import MemoryReader
from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.scheduler import Scheduler
from foveal.models.base import LanguageModel
from foveal.models.run_formats import RunFormats

if TYPE_CHECKING:
    from foveal.models.language_model import TransformersModel
    from foveal.models.processing.processor import Processor

__all__ = ["build_engine_loop", "build_loop", "check_passport", "formats_of", "load_engine_model"]

_log = structlog.get_logger(__name__)


def build_engine_loop(config: EngineConfig) -> EngineLoop:
    """Everything from a checkpoint. Raises ModelLoadError, ConfigurationError, or ArtifactError (see `check_passport`)."""
    check_passport(config)
    check_weights(config, memory_reader(config).read())
    model, processor = load_engine_model(config)
    eos = model.spec.eos_token_ids
    # Without an end-of-sequence token no guided output could end; such requests are refused when they come.
    guides = GuideFactory(processor.tokenizer, eos) if eos and processor.tokenizer.is_fast else None
    loop = build_loop(config, model, guide_factory=guides, draft=load_draft(config, formats_of(config)))
    if config.warmup:
        loop.warm_up()
    return loop


def load_engine_model(config: EngineConfig) -> tuple[TransformersModel, Processor]:
    """Model and processor as `config` asks for them; sets torch's threads. Raises ModelLoadError or ConfigurationError."""
    from foveal.models.loading import load_processor

    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)
    return formats_of(config).load(config.model), load_processor(config.model)


def formats_of(config: EngineConfig) -> RunFormats:
    """The number formats that `config` asks for."""
    return RunFormats(dtype=config.dtype, quantize=config.quantize, kv_dtype=config.kv_dtype, decoder=config.decoder)


def check_passport(config: EngineConfig) -> None:
    """Verify the model directory as far as `config` demands. Raises ArtifactError."""
    if not (config.require_passport or config.require_verdict):
        return
    directory = Path(config.model).expanduser()
    if not directory.is_dir():
        raise PassportMissingError(
            f"{config.model} is not a directory", "one with a passport", "Download the model, and give its directory"
        )
    passport = verify(directory)
    if config.require_verdict:
        require_accepted(passport, directory)
    _log.info("passport verified", model=config.model_name, passport=passport.digest)


def build_loop(
    config: EngineConfig,
    model: LanguageModel,
    *,
    guide_factory: GuideFactory | None = None,
    clock: Clock | None = None,
    draft: LanguageModel | None = None,
    memory: MemoryReader | None = None,
) -> EngineLoop:
    """An engine around models that are already loaded (tests and tools); `draft` is what `load_draft` returns."""
    max_model_len = _max_model_len(config, model)
    kv_dtype = formats_of(config).kv_format(model)
    reader = memory or memory_reader(config)
    reading, needed = reader.read(), working_bytes(config, model)
    num_blocks = config.num_kv_blocks or blocks_that_fit(
        model.spec,
        kv_dtype=kv_dtype,
        block_size=config.block_size,
        max_num_seqs=config.max_num_seqs,
        max_model_len=max_model_len,
        memory_utilization=config.memory_utilization,
        free_bytes=max(0, reading.available_bytes - needed),
    )
    check_pool(config, num_blocks * kv_block_bytes(model.spec, kv_dtype, config.block_size), needed, reading, kv_dtype)
    scheduler = Scheduler(
        SchedulerConfig(
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_num_seqs=config.max_num_seqs,
            block_size=config.block_size,
            num_blocks=num_blocks,
            max_model_len=max_model_len,
            encoder_budget_tokens=config.encoder_budget_tokens,
            feature_cache_bytes=config.feature_cache_bytes,
            enable_prefix_caching=config.enable_prefix_caching,
            batching=config.batching,
            kv_cache=config.kv_cache,
            max_waiting=config.max_waiting,
            eos_token_ids=model.spec.eos_token_ids,
            atomic_image_spans=model.spec.atomic_image_spans,
        ),
        build_latency_control(config, model),
    )
    kv_cache = allocate_kv_cache(
        model.spec, num_blocks=num_blocks, block_size=config.block_size, dtype=kv_dtype, device=model.device
    )
    sampler = Sampler(model.spec.vocab_size)
    runner = Runner(model, kv_cache, sampler)
    clock = clock or MonotonicClock()
    speculator = build_speculator(config, runner, sampler, clock, context_limit=scheduler.context_limit, draft=draft)
    keeper = None
    if config.memory_guard:
        keeper = MemoryKeeper(reader, scheduler, kv_cache, encoder_patch_bytes=encoder_patch_bytes(model))
    return EngineLoop(scheduler, runner, clock, max_model_len, guide_factory, speculator, keeper)


def memory_reader(config: EngineConfig) -> MemoryReader:
    """The real one, with the limit that `config` sets."""
    limit = config.memory_limit_mib
    return LinuxMemory(None if limit is None else limit << 20)


def _max_model_len(config: EngineConfig, model: LanguageModel) -> int:
    limit = model.spec.max_model_len
    if config.max_model_len is not None and config.max_model_len > limit:
        raise ConfigurationError(
            f"max_model_len is {config.max_model_len:,}; the model was trained for {limit:,} positions. "
            f"Use at most --max-model-len {limit}"
        )
    return config.max_model_len or limit
