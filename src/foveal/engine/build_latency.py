"""Put the latency control together that the configuration asks for."""

from __future__ import annotations

from pathlib import Path

import structlog

from foveal.core.errors import ConfigurationError
from foveal.engine.calibration.latency_key import latency_key
from foveal.engine.config import EngineConfig
from foveal.engine.scheduling.pacing.latency_control import LatencyControl, LatencyTargets
from foveal.models.base import LanguageModel
from foveal.planning.latency.latency_file import Calibration, load_calibration

__all__ = ["build_latency_control", "find_calibration"]

_log = structlog.get_logger(__name__)


def find_calibration(config: EngineConfig, model: LanguageModel) -> Calibration | None:
    """What `config.latency_model` names. Raises ConfigurationError for a file that cannot be read or does not fit.

    A damaged file in the cache is only warned of: an engine must start without one too.
    """
    if config.latency_model == "none":
        return None
    key = latency_key(config, model)
    if config.latency_model == "auto":
        try:
            return load_calibration(key)
        except ConfigurationError as error:
            _log.warning("latency_model_unreadable", error=str(error))
            return None
    found = load_calibration(Path(config.latency_model).expanduser())
    if found is not None and (found.key.model, found.key.threads) != (key.model, key.threads):
        raise ConfigurationError(
            f"{config.latency_model} was calibrated for {found.model_name} with {found.key.threads} threads; this is "
            f"{config.model_name} with {key.threads}. Run `foveal calibrate` with the flags of this engine."
        )
    return found


def build_latency_control(config: EngineConfig, model: LanguageModel) -> LatencyControl | None:
    """None if there is neither a target nor a calibration."""
    calibration = find_calibration(config, model)
    if calibration is None and config.target_tpot_ms is None and config.target_ttft_ms is None:
        return None
    if calibration is None:
        _log.warning(
            "not_calibrated",
            effect="--target-tpot-ms is kept by trial; --target-ttft-ms refuses nobody",
            remedy=f"foveal calibrate {config.model}",
        )
    return LatencyControl(
        LatencyTargets(
            tpot_s=None if config.target_tpot_ms is None else config.target_tpot_ms / 1e3,
            ttft_s=None if config.target_ttft_ms is None else config.target_ttft_ms / 1e3,
            vision_wait_s=config.vision_wait_ms / 1e3,
        ),
        None if calibration is None else calibration.model,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        encoder_budget_tokens=config.encoder_budget_tokens,
    )
