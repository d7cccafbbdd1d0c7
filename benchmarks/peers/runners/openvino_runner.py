"""OpenVINO GenAI's continuous batching pipeline on the IR that optimum-intel writes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as og

_BITS = {"int4": 4, "int8": 8, "fp16": 16}
_CACHE_GIB = 2


class Runner:
    def convert(self, model: str, mode: str, out: str) -> None:
        # int4: groups of 64, because 576 is no multiple of 128; --ratio 1.0 leaves nothing but the head in 8 bits.
        options = ["--group-size", "64", "--ratio", "1.0"] if mode == "int4" else []
        command = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino", "--model", model]
        command += ["--task", "text-generation-with-past", "--weight-format", mode, *options, out]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"optimum-cli failed: {done.stdout[-1500:]}")

    def load(self, model: str, mode: str, converted: str, limits: dict[str, int]) -> dict[str, Any]:
        self.threads, self.folder = limits["threads"], Path(converted)
        scheduler = og.SchedulerConfig()
        scheduler.cache_size = _CACHE_GIB
        scheduler.max_num_batched_tokens = 2048
        scheduler.max_num_seqs = limits["sequences"]
        scheduler.enable_prefix_caching = False
        scheduler.dynamic_split_fuse = True
        properties = {"INFERENCE_NUM_THREADS": self.threads}
        self.pipeline = og.ContinuousBatchingPipeline(converted, scheduler, "CPU", properties)
        file = self.folder / "openvino_model.bin"
        return {
            "weights": mode,
            "weight_bits": _BITS[mode],
            "kv": str(ov.Core().get_property("CPU", "KV_CACHE_PRECISION").to_string()) + " (default)",
            "file_bytes": os.path.getsize(file),
        }

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        config = og.GenerationConfig()
        config.max_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        tensors = [ov.Tensor(np.array([ids], dtype=np.int64)) for ids in prompts]
        answers = self.pipeline.generate(tensors, [config] * len(tensors))
        return [list(answer.m_generation_ids[0]) for answer in answers]

    def logits(self, prompt: list[int]) -> Any:
        """Through the same IR and plugin, without the pipeline, which gives none."""
        if not hasattr(self, "request"):
            properties = {"INFERENCE_NUM_THREADS": self.threads}
            self.request = (
                ov.Core().compile_model(self.folder / "openvino_model.xml", "CPU", properties).create_infer_request()
            )
        self.request.reset_state()
        ids = np.array([prompt], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "beam_idx": np.zeros(1, dtype=np.int32)}
        names = {name for port in self.request.model_inputs for name in port.get_names()}
        if "position_ids" in names:
            inputs["position_ids"] = np.arange(len(prompt), dtype=np.int64)[None]
        return self.request.infer(inputs)["logits"][0]
