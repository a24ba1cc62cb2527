"""What a model gives for N views."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.video.transforms import FloatArray


@dataclass(frozen=True, slots=True)
class Outputs:
    """`logits` (N, classes), and what was asked for.

    `features` (N, length): what goes into the last layer. `maps`: the last feature maps of each pathway,
    (N, C, T, H, W).
    """

    logits: FloatArray
    features: FloatArray | None = None
    maps: tuple[FloatArray, ...] = ()

    def of_view(self, index: int) -> Outputs:
        """Those of one of the N views, as of a batch of one."""
        row = slice(index, index + 1)
        features = None if self.features is None else self.features[row]
        return Outputs(self.logits[row], features, tuple(pathway[row] for pathway in self.maps))
