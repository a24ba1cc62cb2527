"""What a model gives for N views."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.video.transforms import FloatArray


@dataclass(frozen=True, slots=True)
class Outputs:
    """`logits` (N, classes); `features` (N, length), what goes into the last layer, where they were asked for."""

    logits: FloatArray
    features: FloatArray | None = None

    def of_view(self, index: int) -> Outputs:
        """Those of one of the N views, as of a batch of one."""
        row = slice(index, index + 1)
        return Outputs(self.logits[row], None if self.features is None else self.features[row])
