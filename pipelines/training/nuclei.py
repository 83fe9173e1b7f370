"""What ``gm_cells`` learns of nuclei: which pixels are of one, and which are of its core.

A core is what is left of a nucleus when its rim is taken away: where nuclei touch, their cores do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from pipelines.models.shipped import finest
from pipelines.models.unet import ResidualUNet
from pipelines.nuclei import MULTIPLE, Nucleus, Rule, merged, mirrored, numbered, shown
from pipelines.training.calibrate import certainty_fit
from pipelines.training.labelled import LabelledPicture
from pipelines.training.loop import Options
from pipelines.training.matching import Box, Counts, counts, matched
from pipelines.training.placing import device_of
from pipelines.training.warp import Warp, tint

ARGS: dict[str, Any] = {"channels": 3, "widths": [32, 64, 96, 128], "outputs": 2}  # of the network
RULE = Rule(threshold=0.5, seed=0.5, smallest=3, share=0.0, least=0.0)  # to judge by during training
_WARP = Warp((160, 160), zoom=(0.75, 1.4), turn=20.0, quarters=True)
_THRESHOLDS, _SEEDS = (0.4, 0.5), (0.2, 0.3, 0.45)  # what the folds choose from
_SMALLEST, _SHARES, _LEAST = (2, 3, 5, 8), (0.0, 0.1, 0.15, 0.2), (0.0, 0.65, 0.7, 0.75, 0.8)
_OFTEN = {"fluorescence": 1.0, "stained": 2.0, "brightfield": 3.0}  # how often a kind of picture is drawn
_CORE = 0.45  # depth from which a pixel is of the core
_CLOSE = 5  # pixels: where two nuclei are nearer, the rims between them count more
_CONTACT = 4.0  # times more


@dataclass(frozen=True, eq=False)
class NucleiPicture:
    """One prepared picture.

    Attributes:
        image: As the network sees it, without padding: float32 (3, rows, columns).
        truth: float32 (3, rows, columns): of a nucleus; of a core; between two nuclei.
        boxes: Of the nuclei.
    """

    kind: str
    fold: int
    image: Tensor
    truth: Tensor
    boxes: tuple[Box, ...]


def prepared(labelled: LabelledPicture, numbers: NDArray[np.int32]) -> NucleiPicture:
    """``numbers``: the mask, a number per nucleus."""
    view = shown(labelled.picture.pixels)
    if view.size != numbers.shape:
        raise ValueError(f"the picture is shown at {view.size}, its mask is {numbers.shape}")
    layers = (numbers > 0, depth(numbers) > _CORE, contact(numbers))
    truth = torch.from_numpy(np.stack(layers).astype(np.float32))
    image = view.image[:, : view.size[0], : view.size[1]].clone()
    return NucleiPicture(labelled.row["label"], labelled.fold, image, truth, tuple(boxes_of(numbers)))


def depth(numbers: NDArray[np.int32]) -> NDArray[np.float32]:
    """How deep each pixel lies in its nucleus: distance to the next pixel of another, over the largest there is."""
    deep = np.zeros(numbers.shape, np.float32)
    for number, place in enumerate(ndimage.find_objects(numbers), start=1):
        if place is None:
            continue
        own = np.pad(numbers[place] == number, 1)
        distance = ndimage.distance_transform_edt(own)[1:-1, 1:-1]
        deep[place] = np.maximum(deep[place], (distance / distance.max()).astype(np.float32))
    return deep


def contact(numbers: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where two nuclei lie within a few pixels."""
    highest = ndimage.maximum_filter(numbers, _CLOSE)
    lowest = ndimage.minimum_filter(np.where(numbers > 0, numbers, np.iinfo(np.int32).max), _CLOSE)
    return np.asarray((highest != lowest) & (highest > 0))


def boxes_of(numbers: NDArray[np.int32]) -> list[Box]:
    """The smallest box around each nucleus."""
    return [
        (right.start, down.start, right.stop - right.start, down.stop - down.start)
        for down, right in filter(None, ndimage.find_objects(numbers))
    ]


@dataclass(frozen=True, eq=False)
class NucleiTask:
    """The pictures less a fold to train on, the fold to judge by."""

    pictures: Sequence[NucleiPicture]
    options: Options
    measure: str = "box F1 at IoU 0.5"
    facts: dict[str, str] = field(default_factory=dict)
    kind: str = "residual"
    args: dict[str, Any] = field(default_factory=lambda: ARGS)

    @property
    def _training(self) -> list[NucleiPicture]:
        return [each for each in self.pictures if each.fold != self.options.fold]

    @property
    def batches(self) -> int:
        return max(1, len(self._training) // self.options.batch)

    def network(self) -> nn.Module:
        return ResidualUNet(**self.args).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        rng, training = np.random.default_rng((self.options.seed, step)), self._training
        often = np.array([_OFTEN.get(each.kind, 1.0) for each in training])
        places = rng.choice(len(training), size=self.options.batch, p=often / often.sum())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            pairs = [_WARP.draw(training[place].image, training[place].truth) for place in places]
            images = torch.stack([tint(image) for image, _ in pairs])
        return images.to(memory_format=torch.channels_last), torch.stack([truth for _, truth in pairs])

    def loss(self, outputs: list[Tensor], truth: Tensor) -> Tensor:
        """Cross-entropy and soft Dice of both maps, more where nuclei touch; coarser ones count less."""
        total = truth.new_zeros(())
        for level, logits in enumerate(outputs):
            target = F.avg_pool2d(truth, 2**level) if level else truth
            wanted, weight = target[:, :2], 1 + _CONTACT * target[:, 2:]
            logits = logits.float()
            entropy = (F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight).mean()
            probability, over = logits.sigmoid(), (0, 2, 3)
            overlap = (2 * (probability * wanted).sum(over) + 1) / (probability.sum(over) + wanted.sum(over) + 1)
            total = total + 0.4**level * (2 * entropy + 1 - overlap.mean())
        return total

    def judge(self, net: nn.Module) -> float | None:
        judged = [each for each in self.pictures if each.fold == self.options.fold]
        if not judged:
            return None
        return sum((score(*maps([net], each.image), each, RULE) for each in judged), Counts()).f1

    def points(self, nets: dict[int, nn.Module]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The rule of the best F1 on the folds that the members had not seen, and certainties; and that F1."""
        judged = [
            (each, *maps([net], each.image))
            for fold, net in nets.items()
            for each in self.pictures
            if each.fold == fold
        ]

        def f1(rule: Rule) -> float:
            return sum((score(likely, core, picture, rule) for picture, likely, core in judged), Counts()).f1

        drawn = max((replace(RULE, threshold=t, seed=s) for t in _THRESHOLDS for s in _SEEDS), key=f1)
        sized = max((replace(drawn, smallest=pixels) for pixels in _SMALLEST), key=f1)
        shared = max((replace(sized, share=share) for share in _SHARES), key=f1)
        rule = max((replace(shared, least=least) for least in _LEAST), key=f1)
        scores, hits = [], []
        for picture, likely, core in judged:
            found = surest(numbered(likely, core, rule)[1])
            scores += [each.score for each in found]
            hits += matched([each.box for each in found], picture.boxes).tolist()
        points = {"rule": asdict(rule), "certainty": certainty_fit(scores, hits)}
        return points, {"n": len(judged), "F1": round(f1(rule), 4)}


@torch.inference_mode()
def maps(nets: Sequence[nn.Module], image: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Likelihood of nucleus and of core (rows, columns) of a picture (3, rows, columns), as the pipeline has it."""
    rows, columns = image.shape[1:]
    padded = F.pad(image[None], (0, -columns % MULTIPLE, 0, -rows % MULTIPLE), mode="replicate")[0]
    images = mirrored(padded).to(memory_format=torch.channels_last)
    both = merged(torch.stack([finest(net(images.to(device_of(net)))).float().cpu() for net in nets]))[
        :, :rows, :columns
    ].numpy()
    return both[0], both[1]


def score(likely: NDArray[np.float32], core: NDArray[np.float32], picture: NucleiPicture, rule: Rule) -> Counts:
    """How its nuclei were found."""
    return counts([each.box for each in surest(numbered(likely, core, rule)[1])], picture.boxes)


def surest(nuclei: list[Nucleus]) -> list[Nucleus]:
    return sorted(nuclei, key=lambda each: -each.score)
