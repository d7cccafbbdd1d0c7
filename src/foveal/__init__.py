"""Foveal takes a trained vision-language model to a production endpoint its owner can defend.

`LLM` and `SamplingParams` load on first use, so that importing a torch-free part never loads torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveal.core.sampling_params import SamplingParams
    from foveal.engine.llm import LLM

__all__ = ["LLM", "SamplingParams", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "LLM":
        from foveal.engine.llm import LLM

        return LLM
    if name == "SamplingParams":
        from foveal.core.sampling_params import SamplingParams

        return SamplingParams
    raise AttributeError(f"module 'foveal' has no attribute {name!r}")
