"""Every pipeline's evidence in OHIF, against a real Orthanc: pictures, and whether what is shown lies where it should.

    python -m benchmarks.viewer SETS --out OUT                 # of each pipeline one study of the split dev
    python -m benchmarks.viewer SETS --out OUT --only us_breast mr_heart
    python -m benchmarks.viewer SETS --out OUT --kinds         # every kind of object, of one study that has them all

``SETS`` holds the wrapped sets, each a folder with its ``index.csv``. OUT gets a PNG for each object that was opened,
and ``viewer.json``. Of a Segmentation it says how much of what is coloured lies in the mask, and how much of the mask
is coloured, to half a pixel of the image; of a report what OHIF writes, and whether all of it can be read.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Error

from node import delivery
from node.cli.viewer import beside
from node.destinations import Destination, outgoing
from pipelines.forms import PRESETS, Wanted
from pipelines.reading import read
from pipelines.registry import load
from pipelines.run import Run
from pipelines.study import Study, read_folder
from tests import viewing
from tests.peers import free_port, orthanc

CASES = {  # pipeline, set, a word of the label
    "mr_brain": ("mr_brain:BrainTumour", "brain_mri_lgg", ""),
    "ct_head": ("ct_head:HeadHaemorrhage", "head_ct_haemorrhage", "haemorrhage"),
    "ct_chest": ("ct_chest:LungTumour", "ct_lung_tumour_patches", ""),
    "mr_brain_type": ("mr_brain_type:BrainTumourType", "brain_mri_tumour", "meningioma"),
    "mr_hippocampus": ("mr_hippocampus:Hippocampus", "hippocampus_mri", ""),
    "mr_heart": ("mr_heart:HeartCine", "cine_mr_lv", ""),
    "us_breast": ("us_breast:BreastUltrasound", "breast_us", "malignant"),
    "op_retina": ("op_retina:Retina", "fundus_vessels", "DRIVE"),
    "xc_skin": ("xc_skin:SkinMelanoma", "skin_isic2017", "melanoma"),
    "gm_cells nuclei": ("gm_cells:Cells", "nuclei_dsb2018", "stained"),
    "gm_cells blood": ("gm_cells:Cells", "blood_cells_bccd", ""),
    "dx_chest": ("dx_chest:Chest", "cxr_lung_masks", ""),
    "enhance": ("enhance:Enhance", "brain_mri_lgg", ""),
}
KINDS = "ct_head"  # has key objects and maps beside its report
EVERY = frozenset().union(*(each.forms for each in PRESETS.values()), Wanted(segmentation="LABELMAP").forms)


@dataclass(frozen=True)
class Case:
    """A study, and what was made of it."""

    name: str
    study: Study
    objects: tuple[Path, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--kinds", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.only if not args.kinds else [KINDS, "us_breast"]
    cases = [made(name, args.sets, args.out, EVERY if args.kinds else PRESETS["ohif"].forms) for name in names]
    with ExitStack() as stack:
        pacs = stack.enter_context(orthanc(args.out / "pacs"))
        receiver = Destination("PACS", "dimse", ae_title=pacs.aet, host=pacs.host, port=pacs.dicom_port)
        for case in cases:
            files = [Path(each.filename) for series in case.study.series for each in series.instances]
            answers = delivery.send(receiver, [outgoing(path) for path in [*files, *case.objects]])
            if refused := [answer for answer in answers if answer.verdict != "delivered"]:
                raise SystemExit(f"{case.name}: Orthanc did not take {refused[0]}")
        address = stack.enter_context(beside(viewing.OHIF, pacs.url, free_port(), args.out / "viewer.log"))
        chromium = stack.enter_context(viewing.browser())
        said = [each for case in cases for each in looked_at(case, chromium, address, args)]
    (args.out / "viewer.json").write_text(json.dumps(said, indent=1) + "\n")


def made(name: str, sets: Path, out: Path, forms: frozenset[Any]) -> Case:
    """The first study of the split dev with such a label, read as the node reads it."""
    use, data, label = CASES[name]
    with (sets / data / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "dev"]
    uid = next(row["study_uid"] for row in rows if label in row["label"].split("|") or not label)
    (study,), _ = read_folder(sets / data / uid)
    runs: tuple[Run, ...] = read(
        study, load(f"pipelines.{use}"), name=name.split()[0], out=out / name, job=f"viewer {name}", forms=forms
    )
    print(f"{name}: {', '.join(run.status for run in runs)}", flush=True)
    return Case(name, study, tuple(path for run in runs for path in run.objects))


def looked_at(case: Case, chromium: Any, address: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each title of the list opened once, in a page of its own; what is wrong is said, and the next one is opened."""
    with viewing.opened(chromium, address, case.study.uid) as page:
        titles = [title.inner_text().split("\n") for title in page.locator(viewing.TITLES).all()]
        pictures = [title.inner_text().split("\n") for title in page.locator(viewing.PICTURES).all()]
        page.screenshot(path=args.out / f"{case.name}.png")
    yield {"case": case.name, "titles": titles, "pictures": pictures}
    seen: dict[str, int] = {}
    for modality, title, *_ in titles:
        which = seen[modality] = seen.get(modality, -1) + 1
        if which and not args.kinds:
            continue
        said: dict[str, Any] = {"case": case.name, "modality": modality, "title": title}
        with viewing.opened(chromium, address, case.study.uid) as page:
            try:
                viewing.load(page, modality, which)
                said |= _facts(page, modality, case)
            except Error as error:
                said["fails"] = str(error).splitlines()[0]
            page.screenshot(path=args.out / f"{case.name} {modality} {which + 1}.png")
        print(json.dumps(said), flush=True)
        yield said


def _facts(page: Any, modality: str, case: Case) -> dict[str, Any]:
    if modality == "SEG":
        where, shown = viewing.place(page), viewing.overlay(page)
        found = [viewing.drawn(path, where.sop) for path in case.objects if path.name.startswith("seg")]
        fitting = [mask for mask in found if mask.any()]
        shares = [viewing.agreement(shown, mask, where) for mask in fitting]
        return {
            "within": max((each[0] for each in shares), default=0.0),
            "covered": max((s[1] for s in shares), default=0.0),
        }
    if modality == "SR":
        return {"lines": viewing.lines(page)}
    return {"spread": float(viewing.canvas(page).std())}


if __name__ == "__main__":
    main()
