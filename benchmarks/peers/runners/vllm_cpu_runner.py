"""vLLM's CPU build, compiled mode off: compiling takes minutes and a compiler, and eager is what starts everywhere."""

import os
from typing import Any

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}

_BITS = {"bfloat16": 16, "float32": 32}


class Runner:
    def convert(self, model: str, mode: str, out: str) -> None:
        """It reads the checkpoint."""

    def load(self, model: str, mode: str, converted: str, limits: dict[str, int]) -> dict[str, Any]:
        cores = sorted(os.sched_getaffinity(0))[: limits["threads"]]
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(str(core) for core in cores)
        from vllm import LLM

        self.llm = LLM(
            model,
            dtype=mode,
            max_model_len=2048,
            enforce_eager=True,
            max_num_seqs=limits["sequences"],
            enable_prefix_caching=False,
            max_num_batched_tokens=2048,
            block_size=128,
            skip_tokenizer_init=True,
        )
        return {"weights": mode, "weight_bits": _BITS[mode], "kv": mode}

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        answers = self.llm.generate(asked, sampling, use_tqdm=False)
        return [list(answer.outputs[0].token_ids) for answer in answers]
