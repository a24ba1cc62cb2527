"""The contender `recipe`: the recipe handler's own code, without TorchServe."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.baselines.archives import recipe
from benchmarks.baselines.contender import Run, Stopwatch, top_five
from benchmarks.baselines.recipe_handler import RecipeHandler
from handlers.model.archive_info import ArchiveInfo


class Recipe:
    """Same weights, same labels, torch's own thread default."""

    def __init__(self, model_dir: Path) -> None:
        self._handler = RecipeHandler()
        self._handler.load(model_dir, recipe(ArchiveInfo.read(model_dir)))

    def prepare(self, video: bytes) -> None:
        """Nothing is known beforehand."""

    def run(self, video: bytes) -> Run:
        watch = Stopwatch()
        with watch.stage("decode"):
            clip = self._handler.decode(video)
        with watch.stage("transform"):
            inputs = self._handler.transform(clip)
        with watch.stage("model"):
            logits = self._handler.infer(inputs).numpy()
        return watch.run(top_five(logits))

    def describe(self) -> dict[str, str]:
        return {"runtime": "torch eager", "precision": "float32", "threads": str(torch.get_num_threads())}

    def close(self) -> None:
        """Nothing to give back."""
