"""What every pipeline has whose networks come by a card: loaded once, kept warm, and named as the card names them."""

from __future__ import annotations

from pathlib import Path

from pipelines.base import Algorithm
from pipelines.evidence import codes
from pipelines.models.precision import half_pays
from pipelines.models.shipped import ModelCard, Networks


class Carded:
    """The networks of one pipeline.

    Raises:
        DamagedWeights: On being made, if card or weights are missing or damaged.
    """

    def __init__(self, card: Path, *, device: str | None = None) -> None:
        self.card, self.card_file = ModelCard.read(card), card
        self._networks = Networks(self.card, card.with_suffix(".safetensors"), device=device)

    @property
    def networks(self) -> Networks:
        return self._networks

    @property
    def device(self) -> str:
        return self._networks.device

    @property
    def algorithm(self) -> Algorithm:
        return Algorithm(self.card.name, self.card.version, codes.ARTIFICIAL_INTELLIGENCE, self.card.digest)

    def warm_up(self) -> str:
        """Probe the processor now rather than in the first study."""
        return "half precision" if half_pays(self.device) else "single precision"
