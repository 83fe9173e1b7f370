"""What ``wetread explain`` does with a folder: reads it, draws the maps, and counts how often they hit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from node.errors import NodeError

if TYPE_CHECKING:
    from pipelines.training.truths import Judged


def maps(
    pipeline: str, use: str, folder: Path, target: Path, *, labels: Path | None, split: str | None,
    wanted: str | None, grid: int, most: int, progress: Callable[[int, int], None],
) -> list[str]:  # fmt: skip
    """Write a PNG per picture and class into ``target``; the lines to say.

    Raises:
        NodeError: If the folder holds nothing that the pipeline gives a certainty of.
        ValueError: If ``labels`` are given and the index or the recipe does not serve.
    """
    from pipelines import registry
    from pipelines.base import UnsuitableStudy, WithheldStudy
    from pipelines.study import read_files, read_folder
    from pipelines.training import explain
    from pipelines.training.prepare import index_rows
    from pipelines.training.truths import columns_of, judged

    rows, parts = {}, dict[str, "Judged"]()
    if labels or split:
        needed = ("study_uid", "sop_uid", "file", "patient_id", "split")
        found = index_rows(folder, wanted=(split,) if split else None, columns=needed)
        rows = {row["sop_uid"]: row for row in found}
        parts = judged(pipeline, None, columns_of(folder)) if labels else {}
        wanted_studies = list(dict.fromkeys(row["study_uid"] for row in found))[:most]
        studies, _ = read_files(folder / row["file"] for row in found if row["study_uid"] in wanted_studies)
    else:
        studies, _ = read_folder(folder)
    reader = registry.load(use)
    target.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    hits: dict[str, list[tuple[bool, float, dict[str, str]]]] = {}
    count = 0
    for number, study in enumerate(studies[:most], start=1):
        try:
            for each in explain.explain(reader, study, grid=grid, wanted=wanted):
                count += 1
                row = rows.get(each.sop_uid)
                shape = (each.pixels.shape[0], each.pixels.shape[1])
                mask = explain.marked(row, parts, labels, shape) if row and labels else None
                name = f"{count:04d}-{''.join(c if c.isalnum() else '_' for c in each.name)}.png"
                explain.drawing(each, mask, target / name)
                said.append(f"{name}: {each.name} {each.certainty:.2f}, {each.sop_uid}")
                for kind, where in (("the pipeline's own map", each.own), ("occlusion", each.hidden)):
                    if row and mask is not None and where is not None:
                        hits.setdefault(kind, []).append((explain.points_at(where, mask), float(mask.mean()), row))
        except (UnsuitableStudy, WithheldStudy) as refusal:
            said.append(f"study {study.uid}: {refusal}")
        progress(number, min(len(studies), most))
    if not count:
        why = f": {said[0]}" if said else ""
        raise NodeError(f"{folder}: no picture that {pipeline} gives a certainty of{why}")
    return [*said, *_rates(hits, bool(labels))]


def _rates(hits: Mapping[str, Sequence[tuple[bool, float, dict[str, str]]]], asked: bool) -> list[str]:
    from pipelines.training.explain import pointing
    from pipelines.training.page import spoken

    if asked and not hits:
        return ["hit rate: nothing is drawn on any of these pictures"]
    lines = []
    for kind, held in hits.items():
        result = pointing(*zip(*held, strict=True))
        rate = spoken(result.rate.as_json(), 2)
        lines.append(f"hit rate of {kind}: {rate} of {result.rate.n} maps; by chance {result.by_chance:.2f}")
    return lines
