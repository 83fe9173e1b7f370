"""Pictures that nobody outlined join those that somebody did: a teacher outlines them first (self-training; Lee 2013).

For sets where more pictures are labelled than outlined. The teacher must not have seen the fold, nor may its outlines
of the fold be learnt from; what it is not sure of is left out, for it says nothing of most of what it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pipelines.models.store import tensors_of
from pipelines.training.cases import fold_of
from pipelines.training.examples import Examples, group_of
from pipelines.training.pack import facts_of
from pipelines.training.picture_tasks import Outline, outputs_of

LEAST, MOST = 0.003, 0.45  # share of the picture that is outlined
SURE = 0.85  # mean probability within


class UnfitTeacher(ValueError):
    """The teacher is of another kind, or has seen the fold that judges."""


@dataclass(frozen=True)
class Taught:
    """What a teacher made of pictures.

    Attributes:
        task: With them among what is learnt from; judged as before.
        kept, asked: How many of the pictures that show something it was sure of.
    """

    task: Outline
    kept: int
    asked: int


def taught(task: Outline, more: Examples, teacher: Path) -> Taught:
    """The task with more pictures, each outlined by ``teacher``; mirrored and not, the mean.

    Args:
        more: Without masks; ``labels`` (N, 1) say whether there is anything to outline. One label alone is outlined.

    Raises:
        UnfitTeacher: If its weights are not of the task's network, or learnt from the task's fold.
    """
    fold = task.options.fold
    if facts_of(teacher).get("fold") != str(fold):
        raise UnfitTeacher(f"{teacher} did not leave out the fold {fold}: it would teach what is to judge")
    net = task.network()
    try:
        net.load_state_dict(tensors_of(teacher))
    except RuntimeError as error:
        raise UnfitTeacher(f"{teacher} is no network of the kind {task.kind!r} as it is trained here") from error
    more = more.at([place for place, row in enumerate(more.rows) if fold_of(group_of(row)) != fold])
    found = _outlined(net.eval(), more.images)
    masks = found > 0.5
    shows = more.labels[:, 0] > 0.5
    area = masks.flatten(1).float().mean(1)
    sure = (found * masks).flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1)
    fits = (area > LEAST) & (area < MOST) & (sure > SURE)
    masks &= shows[:, None, None, None]
    kept = torch.nonzero(fits | ~shows).flatten().tolist()
    own = task.examples
    together = Examples(
        torch.cat([own.images, more.images[kept]]),
        torch.cat([own.labels, more.labels[kept, : own.labels.shape[1]]]),
        torch.cat([own.masks, masks[kept]]),
        (*own.rows, *(more.rows[place] for place in kept)),
    )
    return Taught(replace(task, examples=together), int((fits & shows).sum()), int(shows.sum()))


def _outlined(net: torch.nn.Module, images: Tensor) -> Tensor:
    straight, mirrored = (outputs_of(net, each).sigmoid() for each in (images, images.flip(-1)))
    return (straight + mirrored.flip(-1)) / 2
