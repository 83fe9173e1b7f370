"""What a new institution costs a network that outlines, and what each remedy without its labels gives back.

    .venv/bin/python benchmarks/adaptation_outlines.py DICOM LABELS RUNS [--steps 400]

DICOM: brain_mri_lgg, wrapped, with its index; LABELS: the set's folder, for the masks; RUNS: where networks and
prepared patients are kept, so that a run that was stopped goes on. Patients of the split ``train`` alone, and the small
networks of ``small_brain``. Each institution in turn is left out, and its patients are outlined by a network that never
saw it; the twins saw it, for they leave out a third of the patients of every institution. The institution with one
patient is left out along with the smallest other. Remedies:

    histogram, site         the site's greys onto the source's, one curve per sequence for the whole site
    histogram, study        the same, a curve for each study
    statistics, site        the batch norms' means and variances: the site's in place of the training's
    statistics, shifted     the batch norms moved by what sets the site apart from the source
    randomisation           learnt with gamma, contrast, noise, blur and fields two to three times as strong
    both                    randomisation, then statistics, shifted

Writes adaptation_outlines.json and .md beside this file; Dice of the volume at 0.5, intervals by resampling patients.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.batch_norms import Norms, moved, norms_of, with_norms
from benchmarks.small_brain import BATCH, WIDTHS, learnt, mixed, overlap, said_on_the_way, shrunk
from pipelines import imaging
from pipelines.imaging import LIMIT
from pipelines.training import cases, resampling
from pipelines.training.cases import Case
from pipelines.training.prepare import prepare_all

PARTS = 3  # of the twins' cross-validation
SMALLEST = 3  # patients, for an institution to be left out by itself
QUANTILES = np.linspace(0, 100, 65)


@dataclass(frozen=True, eq=False)
class Held:
    """The patients, on the canvas of the pipeline and on the small one, in one order."""

    whole: Sequence[Case]
    small: Sequence[Case]


def greys(some: Sequence[Case], sequence: int) -> NDArray[np.float64] | None:
    """Quantiles of a sequence inside the heads, the mean over studies; None where none has it."""
    found = []
    for case in some:
        image = case.images[:, sequence].float().numpy()
        if image.any():
            found.append(np.percentile(image[imaging.head_mask(case.images[:, 1].float().numpy())], QUANTILES))
    return np.mean(found, axis=0) if found else None


def matched(case: Case, own: Mapping[int, Any], theirs: Mapping[int, Any]) -> Case:
    """Each sequence by the curve from one set of quantiles onto another; beyond its ends it goes on in parallel."""
    images = case.images.float().numpy().copy()
    for sequence in range(images.shape[1]):
        image = images[:, sequence]
        if not image.any() or own[sequence] is None or theirs[sequence] is None:
            continue
        at, first = np.unique(own[sequence], return_index=True)
        to = theirs[sequence][first]
        beyond = np.minimum(image - at[0], 0) + np.maximum(image - at[-1], 0)
        images[:, sequence] = np.clip(np.interp(image, at, to) + beyond, -LIMIT, LIMIT)
    return replace(case, images=torch.from_numpy(images).half())


def curves(some: Sequence[Case]) -> dict[int, Any]:
    return {sequence: greys(some, sequence) for sequence in range(len(imaging.SEQUENCES))}


def kept(file: Path, made: Callable[[], dict[str, list[float]]]) -> dict[str, list[float]]:
    """What an earlier run found, or what is found now."""
    if not file.is_file():
        found = made()
        file.write_text(json.dumps(found))
    held: dict[str, list[float]] = json.loads(file.read_text())
    return held


def plainly(net: nn.Module, site: Sequence[int], away: Sequence[int], held: Held) -> dict[str, list[float]]:
    """Dice of each patient of a site by a network that was trained without it, with each remedy that needs no other."""
    source, own = [held.small[i] for i in away], [held.small[i] for i in site]
    theirs, here = curves(source), curves(own)
    reference, there = norms_of(net, mixed(source)), norms_of(net, mixed(own))
    shifted = moved(Norms.held_by(net), reference, there)
    ways: dict[str, tuple[nn.Module, Callable[[Case], Case]]] = {
        "nothing": (net, lambda case: case),
        "histogram, site": (net, lambda case: matched(case, here, theirs)),
        "histogram, study": (net, lambda case: matched(case, curves([case]), theirs)),
        "statistics, site": (with_norms(net, there), lambda case: case),
        "statistics, shifted": (with_norms(net, shifted), lambda case: case),
    }
    return {name: [overlap(net, way(held.small[i]), held.whole[i]) for i in site] for name, (net, way) in ways.items()}


def widely(net: nn.Module, site: Sequence[int], away: Sequence[int], held: Held) -> dict[str, list[float]]:
    """The same of a network whose pictures were drawn more at random."""
    source, own = [held.small[i] for i in away], [held.small[i] for i in site]
    both = with_norms(net, moved(Norms.held_by(net), norms_of(net, mixed(source)), norms_of(net, mixed(own))))
    ways = {"randomisation": net, "both": both}
    return {name: [overlap(each, held.small[i], held.whole[i]) for i in site] for name, each in ways.items()}


def measured(held: Held, runs: Path, steps: int, *, randomised: bool) -> dict[str, dict[str, list[float]]]:
    """Institution → remedy → Dice of each of its patients."""
    parts, found = part_of(held.small), {}
    everything = sites_of(held.small)
    for name, (site, away) in everything.items():
        network = next(other for other, (_, places) in everything.items() if places == away)
        training = [held.small[i] for i in away]
        for kind, judged in (("", plainly), (" wide", widely))[: 1 + randomised]:
            net = learnt(f"without {network}{kind}", training, runs, steps, wide=bool(kind))
            file = runs / f"{name}{kind}.json"
            scores = kept(file, partial(judged, net, site, away, held))
            found[name] = found.get(name, {}) | scores
    twins = [0.0] * len(parts)
    for part in range(PARTS):
        training = [case for case, own in zip(held.small, parts, strict=True) if own != part]
        net, here = learnt(f"twin {part}", training, runs, steps), [i for i, own in enumerate(parts) if own == part]
        scores = kept(runs / f"twin {part}.json", partial(twinned, net, here, held))
        for place, score in zip(here, scores["twin"], strict=True):
            twins[place] = score
    for name, (site, _) in everything.items():
        found[name]["the twin, which saw it"] = [twins[i] for i in site]
    return found


def twinned(net: nn.Module, places: Sequence[int], held: Held) -> dict[str, list[float]]:
    return {"twin": [overlap(net, held.small[i], held.whole[i]) for i in places]}


def sites_of(patients: Sequence[Case]) -> dict[str, tuple[list[int], list[int]]]:
    """Institution → its patients, and all that a network may learn from that leaves it out."""
    of: dict[str, list[int]] = {}
    for place, case in enumerate(patients):
        of.setdefault(case.institution, []).append(place)
    judged = sorted((name for name in of if len(of[name]) >= SMALLEST), key=lambda name: len(of[name]))
    too_few = [place for name in of if name not in judged for place in of[name]]
    said = {}
    for name in judged:
        gone = set(of[name]) | (set(too_few) if name == judged[0] else set())
        said[name] = (of[name], [place for place in range(len(patients)) if place not in gone])
    for name in sorted(set(of) - set(judged)):
        said[name] = (of[name], said[judged[0]][1])
    return said


def part_of(patients: Sequence[Case]) -> list[int]:
    """Which third each patient is in: every institution is spread over all."""
    seen: dict[str, int] = {}
    parts = []
    for case in patients:
        number = seen[case.institution] = seen.get(case.institution, -1) + 1
        parts.append(number % PARTS)
    return parts


def summed(scores: Mapping[str, Sequence[float]], patients: Sequence[str]) -> dict[str, Any]:
    """Mean Dice of each remedy, and its gain over doing nothing, patient by patient."""
    said: dict[str, Any] = {}
    base = np.array(scores["nothing"])
    for name, each in scores.items():
        values = np.array(each)
        said[name] = resampling.estimate(resampling.mean_of(values), patients).as_json()
        said[name]["gain"] = resampling.estimate(resampling.mean_of(values - base), patients).as_json()
    return said


def report(found: Mapping[str, Mapping[str, Sequence[float]]], held: Held, steps: int) -> dict[str, Any]:
    everything = sites_of(held.small)
    names = {site: [held.small[i].patient for i in places] for site, (places, _) in everything.items()}
    pooled = {name: [score for site in found for score in found[site][name]] for name in found[next(iter(found))]}
    whole = [patient for site in found for patient in names[site]]
    said = {
        site: {"patients": len(names[site]), "learnt from": len(everything[site][1]), "dice": summed(each, names[site])}
        for site, each in found.items()
    }
    said["all"] = {"patients": len(whole), "learnt from": None, "dice": summed(pooled, whole)}
    each_patient = {site: {"patients": names[site], **found[site]} for site in found}
    return {"steps": steps, "batch": BATCH, "widths": WIDTHS, "sites": said, "each": each_patient}


def text(each: Mapping[str, Any], *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    if each["interval"] is None:
        return f"{each['value']:{form}}"
    low, high = each["interval"]
    return f"{each['value']:{form}} ({low:{form}} to {high:{form}})"


def page(said: Mapping[str, Any]) -> str:
    remedies = list(said["sites"]["all"]["dice"])
    lines = [
        "# What another institution costs an outline, and what helps without labels",
        "",
        "    .venv/bin/python benchmarks/adaptation_outlines.py DICOM LABELS RUNS",
        "",
        "Mean Dice of the volume, 95 % by resampling patients. brain_mri_lgg, the patients of train; the recipe of "
        f"`mr_brain` made small (48 × 40, {said['widths'][0]} to {said['widths'][-1]} channels, {said['steps']} "
        f"batches of {said['batch']}, one seed): not the shipped networks, which are better by far and may bear more "
        "or less. The statistics of a site are of the very studies that are judged, without their outlines.",
        "",
        "| site left out | patients | learnt from | nothing | the twin, which saw it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for site, each in said["sites"].items():
        dice_of = each["dice"]
        lines.append(
            f"| {site} | {each['patients']} | {each['learnt from'] or ''} | {text(dice_of['nothing'])} | "
            f"{text(dice_of['the twin, which saw it'])} |"
        )
    lines += ["", "The gain over doing nothing, patient by patient:", ""]
    shown = [name for name in remedies if name != "nothing"]
    lines += ["| site | " + " | ".join(shown) + " |", "| --- | " + " | ".join("---" for _ in shown) + " |"]
    for site, each in said["sites"].items():
        gains = (text(each["dice"][name]["gain"], signed=True) for name in shown)
        lines.append(f"| {site} | " + " | ".join(gains) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dicom", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--without-randomisation", action="store_true", help="four networks fewer")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    prepare_all(args.dicom, args.labels, args.runs / "cases", phantoms=0, said=said_on_the_way)
    whole = cases.load(args.runs / "cases")
    held = Held(whole, [shrunk(case) for case in whole])
    found = measured(held, args.runs, args.steps, randomised=not args.without_randomisation)
    said = report(found, held, args.steps)
    (args.out / "adaptation_outlines.json").write_text(json.dumps(said, indent=1) + "\n")
    (args.out / "adaptation_outlines.md").write_text(page(said))
    print(page(said))


if __name__ == "__main__":
    main()
