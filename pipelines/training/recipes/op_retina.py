"""How ``op_retina`` is trained."""

from __future__ import annotations

from pipelines.training.labelled import labelled_pictures
from pipelines.training.loop import Options
from pipelines.training.recipes import Recipe, Sources
from pipelines.training.vessels import VesselTask, prepared


def _vessels(sources: Sources, options: Options) -> VesselTask:
    pictures = [prepared(each, sources.labels) for each in labelled_pictures(sources.data, sources.splits)]
    sources.said(f"{len(pictures)} pictures of {len({each.name for each in pictures})} patients")
    return VesselTask(pictures, options)


RECIPES = {
    "vessels": Recipe(
        Options(network="residual", batch=8, rate=3e-3, average=0.995, checks=4, patience=99, epochs=95), _vessels
    )
}
