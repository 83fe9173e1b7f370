"""Do masks come back, wherever the images lie, and is right right? Over 200 geometries, and 10,000 sides.

    .venv/bin/python benchmarks/roundtrip.py [--geometries N] [--sides N]

Each geometry's two masks, which overlap, are written as one BINARY Segmentation; highdicom reads them by source image,
dcmqi as volumes in space, whose slices are then looked for where the frames lie. Each side is that of a lesion 4 to
80 mm from the middle of a patient who lies in any direction, as the report's measurement group says it. Writes
roundtrip.json and roundtrip.md beside this file. It is no timing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from tests.geometries import KINDS, masks_on, series_of
from tests.lateralities import RIGHT_OR_LEFT, case, said_of
from tests.roundtrip import by_dcmqi, by_highdicom, on_frames, written


def geometries(count: int) -> dict[str, Counter[str]]:
    """By kind of geometry: how many were equal, other, or refused, by reader."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    with tempfile.TemporaryDirectory() as text:
        for number in range(count):
            kind, series = series_of(number)
            masks, path = masks_on(series, number), Path(text) / f"{number}.dcm"
            written(series, masks, path)
            equal = np.array_equal(by_highdicom(path, series), np.stack(masks))
            found[kind]["highdicom equal" if equal else "highdicom other"] += 1
            try:
                volumes = by_dcmqi(path, Path(text) / str(number))
                pairs = zip(volumes, masks, strict=True)
                equal = all(np.array_equal(on_frames(volume, series), mask) for volume, mask in pairs)
                found[kind]["dcmqi equal" if equal else "dcmqi other"] += 1
            except RuntimeError:  # in its own words
                found[kind]["dcmqi refused"] += 1
            except ValueError:  # a slice where there is none
                found[kind]["dcmqi other"] += 1
    return found


def sides(count: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for number in range(count):
        truth, finding, series = case(number)
        said = said_of(finding, series)
        found["unsaid" if said is None else "correct" if said == RIGHT_OR_LEFT[truth] else "wrong"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--geometries", type=int, default=200)
    parser.add_argument("--sides", type=int, default=10_000)
    given = parser.parse_args()
    by_kind, said = geometries(given.geometries), sides(given.sides)
    columns = ("highdicom equal", "highdicom other", "dcmqi equal", "dcmqi other", "dcmqi refused")
    rows = [f"| {kind} | {' | '.join(str(each[column]) for column in columns)} |" for kind, each in by_kind.items()]
    out = Path(__file__).with_suffix("")
    out.with_suffix(".json").write_text(json.dumps({"geometries": by_kind, "sides": said}, indent=1) + "\n")
    head = f"| geometry | {' | '.join(columns)} |\n| --- {'| --- ' * len(columns)}|\n"
    out.with_suffix(".md").write_text(
        "# Masks there and back, and right and left\n\n"
        f"{given.geometries} geometries, two masks that overlap on each.\n\n"
        + head
        + "\n".join(rows)
        + "\n\ndcmqi's volumes are boxes with one step between slices: slices at uneven distances it puts where they"
        " are not, and those of a tilted gantry that leave the box it refuses. highdicom reads these, too.\n\n"
        f"Sides, as the report says them, of {given.sides} lesions 4 to 80 mm from the middle:"
        f" {said['correct']} correct, {said['wrong']} wrong, {said['unsaid']} left unsaid (nearer than 10 mm).\n\n"
        "    .venv/bin/python benchmarks/roundtrip.py\n"
    )


if __name__ == "__main__":
    main()
