"""Which pictures a pipeline would not read because of how they were taken: fitted on train, judged on dev.

    .venv/bin/python benchmarks/quality.py DICOM

DICOM: a folder with the sets as DICOM, as ``DICOM/blood_cells_bccd``. The range of a measure (``pipelines.quality``) is
that of the pictures of train, from the 0.5th to the 99.5th percentile, and on either side ``MARGIN`` times as much
again. False refusals on train are of fifths of its patients whose ranges come from the other four. Writes quality.json,
with the ranges as they stand on the cards, and quality.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipelines import ct_chest, nuclei, smears
from pipelines.instance import open_instance, text
from pipelines.quality import SAID, complaint, measures, of_colours
from pipelines.training.corruptions import corruptions, greys_of
from pipelines.training.examples import Row, group_of
from pipelines.training.prepare import index_rows
from pipelines.training.robustness import values_of

FOLDS = 5
# Set, how the network sees a picture of it, the measures that are bound, the margin, and how many pictures are spoilt.
PARTS: dict[str, tuple[str, Callable[[Any], Tensor], tuple[str, ...], float, int]] = {
    "gm_cells smears": (
        "blood_cells_bccd",
        lambda pixels: smears.shown(pixels.astype(np.uint8)).picture,
        ("blocks", "fineness", "light", "white", "red", "blue"),
        2.0,
        30,
    ),
    "gm_cells nuclei": ("nuclei_dsb2018", lambda pixels: nuclei.shown(pixels).picture, ("blocks",), 2.0, 30),
    "op_retina vessels": (
        "fundus_vessels",
        lambda pixels: of_colours(pixels.astype(np.uint8)),
        ("blocks", "fineness"),
        1.0,
        8,
    ),
    "ct_chest outline": ("ct_lung_tumour_patches", lambda pixels: ct_chest.window(pixels), ("edges",), 0.5, 30),
}
COLUMNS = ("study_uid", "series_uid", "sop_uid", "file", "patient_id", "split")
Usual = dict[str, tuple[float | None, float | None]]


def fitted(found: Sequence[Mapping[str, float]], names: Sequence[str], margin: float) -> Usual:
    usual: Usual = {}
    for name in names:
        low, high = np.quantile([each[name] for each in found], (0.005, 0.995))
        beyond = margin * (high - low)
        bounds = (float(low - beyond), float(high + beyond))
        usual[name] = tuple(round(each, 4) if SAID[name][i] else None for i, each in enumerate(bounds))  # type: ignore[assignment]
    return usual


def folds_of(rows: Sequence[Row]) -> np.ndarray:
    groups = [group_of(row) for row in rows]
    places = {group: place % FOLDS for place, group in enumerate(dict.fromkeys(groups))}
    return np.array([places[group] for group in groups])


def is_beyond(found: Mapping[str, float], usual: Usual) -> bool:
    return any(
        (least is not None and found[name] < least) or (most is not None and found[name] > most)
        for name, (least, most) in usual.items()
    )


def judged(data: Path, rows: Sequence[Row], seen: Callable[[Any], Tensor], usual: Usual, most: int) -> dict[str, float]:
    """Share that would not be read: as they are, and spoilt in each way."""
    modality = text(open_instance(data / rows[0]["file"]), "Modality")
    refused: dict[str, list[bool]] = {}
    for row in rows:
        pixels = values_of(data / row["file"])
        refused.setdefault("as it is", []).append(complaint(seen(pixels), usual) is not None)
    for place, row in enumerate(rows[:: max(1, len(rows) // most)]):
        pixels = values_of(data / row["file"])
        greys = greys_of([pixels], modality)
        for each in corruptions(modality):
            for degree in each.degrees:
                spoilt = each.spoil(pixels, degree, greys, np.random.default_rng(place))
                kept = spoilt if modality == "CT" else np.clip(np.rint(spoilt), 0, 255)
                name = f"{each.name}, {degree:g} {each.unit}"
                refused.setdefault(name, []).append(complaint(seen(kept), usual) is not None)
    return {name: round(float(np.mean(each)), 3) for name, each in refused.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("parts", nargs="*", metavar="PART", help="; ".join(PARTS))
    parser.add_argument("--without-dev", action="store_true", help="while a measure or a margin is being chosen")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stem = Path(__file__).parent / "quality"
    said: dict[str, Any] = (
        json.loads(stem.with_suffix(".json").read_text()) if stem.with_suffix(".json").exists() else {}
    )
    for part in args.parts or PARTS:
        name, seen, names, margin, most = PARTS[part]
        data = args.data / name
        rows = index_rows(data, wanted=("train",), columns=COLUMNS)
        found = [measures(seen(values_of(data / row["file"]))) for row in rows]
        folds = folds_of(rows)
        kept_apart = [
            is_beyond(found[i], fitted([found[j] for j in np.flatnonzero(folds != fold)], names, margin))
            for fold in range(FOLDS)
            for i in np.flatnonzero(folds == fold)
        ]
        usual = fitted(found, names, margin)
        said[part] = {
            "quality": usual,
            "margin": margin,
            "pictures of train": len(rows),
            "false refusals, folds": round(float(np.mean(kept_apart)), 4),
            "train": judged(data, rows, seen, usual, most),
        }
        if not args.without_dev:
            dev = index_rows(data, wanted=("dev",), columns=COLUMNS)
            said[part] |= {"pictures of dev": len(dev), "dev": judged(data, dev, seen, usual, most)}
        print(json.dumps(said[part]), flush=True)
    if not args.without_dev:
        stem.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
        stem.with_suffix(".md").write_text(page(said))


def page(said: Mapping[str, Any]) -> str:
    lines = [
        "# Pictures that are not read because of how they were taken",
        "",
        "    .venv/bin/python benchmarks/quality.py DICOM",
        "",
        "Ranges and margins were chosen on train. Spoilt: every so many-th picture of a "
        "split. Which of them a pipeline reads well all the same, `robustness_NAME.md` says.",
    ]
    for part, each in said.items():
        lines += [
            "",
            f"## {part}",
            "",
            f"Bound: {', '.join(each['quality'])}; margin {each['margin']:g}. {each['pictures of train']} pictures of "
            f"train, of which {each['false refusals, folds']:.1%} would not be read by ranges of other patients; "
            f"{each['pictures of dev']} of dev.",
            "",
            "| what | train | dev |",
            "| --- | --- | --- |",
        ]
        order = sorted(each["dev"], key=lambda name: (name != "as it is", -each["dev"][name]))
        lines += [f"| {name} | {each['train'][name]:.0%} | {each['dev'][name]:.0%} |" for name in order]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
