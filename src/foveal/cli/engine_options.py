"""Flags that every command with an engine shares. Names follow vLLM's where they mean the same."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "Batching",
    "BlockSize",
    "Decoder",
    "DraftVocabulary",
    "Dtype",
    "KvBlocks",
    "KvCache",
    "KvDtype",
    "LatencyModel",
    "MaxBatchedTokens",
    "MaxModelLen",
    "MaxNumSeqs",
    "MemoryGuard",
    "MemoryLimitMib",
    "MemoryUtilization",
    "Model",
    "PrefixCaching",
    "Quantize",
    "RequirePassport",
    "RequireVerdict",
    "Speculate",
    "SpeculateAdaptive",
    "SpeculateTokens",
    "TargetTpotMs",
    "TargetTtftMs",
    "Threads",
    "VisionWaitMs",
]

Model = Annotated[str, typer.Argument(help="Checkpoint directory, or a hub id where there is a hub.", metavar="MODEL")]
Dtype = Annotated[
    str, typer.Option(help="auto (the checkpoint's, or float32 where the CPU is slow at it), float32, bfloat16.")
]
Decoder = Annotated[str, typer.Option(help="auto, native (compiled), fused (ours in torch), hf (transformers').")]
Quantize = Annotated[
    str,
    typer.Option(
        help="none, float16, bfloat16, int8 or int4: round on load what the checkpoint holds in full precision.",
        metavar="MODE",
    ),
]
KvDtype = Annotated[str, typer.Option(help="auto (the model's) or int8: KV cache in 8 bits, per token and head.")]
MaxModelLen = Annotated[
    int | None, typer.Option(help="Context length in tokens.  [default: the model's]", show_default=False)
]
MaxNumSeqs = Annotated[int, typer.Option(help="Most sequences running at the same time.")]
MaxBatchedTokens = Annotated[
    int, typer.Option("--max-num-batched-tokens", help="Token budget of one step; longer prompts are cut into chunks.")
]
TargetTpotMs = Annotated[
    float | None,
    typer.Option(
        "--target-tpot-ms",
        help="Most ms of a step in which requests decode; prompts, pictures and the batch adapt to it.  [default: none]",
        show_default=False,
    ),
]
TargetTtftMs = Annotated[
    float | None,
    typer.Option(
        "--target-ttft-ms",
        help="Refuse requests whose first token is predicted to come later (needs `foveal calibrate`).  [default: none]",
        show_default=False,
    ),
]
VisionWaitMs = Annotated[
    float, typer.Option(help="Most ms that a picture waits for others of its size, where the calibration says it pays.")
]
LatencyModel = Annotated[
    str, typer.Option(help="auto (what `foveal calibrate` saved for this machine and model), none, or a file.")
]
KvBlocks = Annotated[
    int | None,
    typer.Option("--num-kv-blocks", help="KV pool size in blocks.  [default: from memory]", show_default=False),
]
BlockSize = Annotated[
    int, typer.Option(help="Tokens per KV block; a prefix hit ends at its border. 16 or more for very long contexts.")
]
MemoryUtilization = Annotated[float, typer.Option(help="Share of the free memory that the KV pool may take.")]
MemoryLimitMib = Annotated[
    int | None,
    typer.Option(help="Most the engine process should take, MiB.  [default: cgroup and machine]", show_default=False),
]
MemoryGuard = Annotated[
    bool,
    typer.Option("--memory-guard/--no-memory-guard", help="Give up caches and sequences before memory runs out."),
]
PrefixCaching = Annotated[
    bool, typer.Option("--enable-prefix-caching/--no-enable-prefix-caching", help="Reuse KV of equal prefixes.")
]
Batching = Annotated[str, typer.Option(help="continuous, or static as a baseline to compare with.")]
KvCache = Annotated[
    bool, typer.Option("--kv-cache/--no-kv-cache", help="Recompute everything each step: a baseline to compare with.")
]
RequirePassport = Annotated[
    bool,
    typer.Option("--require-passport", help="Refuse a model whose files are not those that its passport.json lists."),
]
RequireVerdict = Annotated[
    bool,
    typer.Option("--require-verdict", help="Refuse a model that the quality gate has not accepted; checks files too."),
]
Speculate = Annotated[
    str | None,
    typer.Option(
        help="Guess tokens ahead and verify them: ngram, grammar, draft:PATH, auto (grammar and ngram), or several with "
        "commas.  [default: off]",
        show_default=False,
    ),
]
SpeculateTokens = Annotated[int, typer.Option(help="Most tokens guessed per request and step; adapts from 2 to this.")]
SpeculateAdaptive = Annotated[
    bool,
    typer.Option(
        "--speculate-adaptive/--no-speculate-adaptive",
        help="Guess as far as it pays; without, always --speculate-tokens: a baseline to compare with.",
    ),
]
DraftVocabulary = Annotated[
    int | None,
    typer.Option(help="Tokens that a draft model can guess: its lowest ids, which are the most frequent. 0 for all."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads of the engine.  [default: all]", show_default=False)
]
