"""What a change of institution or view costs a classifier, and what each remedy without labels gives back.

    .venv/bin/python benchmarks/adaptation.py IMAGENET SETS DICOM [--slices 8]

IMAGENET: the weights of MobileNetV2 (safetensors). SETS: the folder of the sets, DICOM: the same wrapped, whose indexes
say which picture is whose. Two problems: a FLAIR slice with or without a tumour, each institution of brain_mri_lgg left
out in turn; an opacity on a chest radiograph as radiologists saw it, learnt on one view of cxr_nih, judged on the
other. The encoder stays as ImageNet left it, a logistic layer is learnt on its features: small, so that all of it is
measured in minutes; the shipped networks are fine-tuned, and may bear more or less. Remedies:

    histogram       the site's greys mapped onto the source's, quantile by quantile, before the network
    statistics      the last layer changed by the features' means and deviations (``training.adapt``)
    randomisation   learnt also on pictures whose gamma, contrast, noise and blur were drawn at random

Writes adaptation.json and .md beside this file; intervals by resampling patients.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipelines.models.mobile import MobileClassifier
from pipelines.models.store import initialise
from pipelines.training import resampling
from pipelines.training.adapt import Statistics, aligned

SIDE = 192
RANDOM_COPIES = 2
QUANTILES = np.linspace(0, 100, 65)
SMALLEST = 8  # pictures with and without, for a site to be judged alone


@dataclass(frozen=True, eq=False)
class Pictures:
    """Greys 0 to 1 (N, SIDE, SIDE), whether the finding is there, patient and site of each."""

    greys: NDArray[np.float32]
    there: NDArray[np.bool_]
    patients: list[str]
    sites: list[str]

    def at(self, chosen: NDArray[np.bool_]) -> Pictures:
        places = np.flatnonzero(chosen)
        return Pictures(
            self.greys[places], self.there[places], [self.patients[i] for i in places], [self.sites[i] for i in places]
        )


def rows_of(index: Path) -> Iterator[dict[str, str]]:
    with index.open(newline="") as file:
        yield from csv.DictReader(file)


def shown(file: Path, channel: int | None) -> NDArray[np.float32]:
    picture = Image.open(file)
    picture = picture.convert("RGB").getchannel(channel) if channel is not None else picture.convert("L")
    grey = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    low, high = np.percentile(grey, (0.5, 99.5))
    return np.clip((grey - low) / max(high - low, 1.0), 0, 1).astype(np.float32)


def brain(sets: Path, dicom: Path, slices: int) -> Pictures:
    """FLAIR slices, evenly spaced through the middle of each patient's head."""
    of: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(dicom / "brain_mri_lgg" / "index.csv"):
        if row["sequence"] == "FLAIR":
            of.setdefault(row["patient_id"], []).append(row)
    chosen = []
    for rows in of.values():
        rows.sort(key=lambda row: int(row["slice"]))
        places = np.linspace(0.15 * len(rows), 0.85 * len(rows), slices).astype(int)
        chosen += [rows[place] for place in np.unique(places)]
    greys = np.stack([shown(sets / "brain_mri_lgg" / row["path"], 1) for row in chosen])
    there = np.array([int(row["tumour_pixels"]) > 0 for row in chosen])
    return Pictures(greys, there, [row["patient_id"] for row in chosen], [row["institution"] for row in chosen])


def chest(sets: Path, dicom: Path) -> Pictures:
    """Radiographs that a radiologist of the RSNA has read."""
    rows = [
        row for row in rows_of(dicom / "cxr_nih" / "index.csv") if row["rsna_class"] and row["view"] in ("AP", "PA")
    ]
    greys = np.stack([shown(sets / "cxr_nih" / row["path"], None) for row in rows])
    there = np.array([row["rsna_class"] == "Lung Opacity" for row in rows])
    return Pictures(greys, there, [row["patient_id"] for row in rows], [row["view"] for row in rows])


class Encoder:
    def __init__(self, weights: Path) -> None:
        self._net = MobileClassifier(3, 1).eval()
        initialise(self._net, weights)
        self._net = self._net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, greys: NDArray[np.float32]) -> Tensor:
        """(N, 1280)."""
        found = []
        for part in torch.from_numpy(greys).split(16):
            found.append(self._net.embed(part[:, None].expand(-1, 3, -1, -1)))
            print(f"\r{sum(map(len, found))} of {len(greys)} pictures  ", end="", file=sys.stderr, flush=True)
        return torch.cat(found).clone()


def learnt(features: Tensor, there: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Weight (1, D) and bias (1,) of a logistic layer; both classes count alike."""
    known = Statistics.of(features)
    spread = known.deviation + 1e-3
    x, y = (features - known.mean) / spread, torch.from_numpy(there.astype(np.float32))
    weight, bias = torch.zeros(1, x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    balance = torch.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits((x @ weight.T)[:, 0] + bias, y, weight=balance)
        value = value + 0.02 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    weight, bias = weight.detach() / spread, bias.detach()
    return weight, bias - weight @ known.mean


def randomised(greys: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Gamma 0.5 to 2, contrast and brightness, blur and noise: each picture its own."""
    rng, made = np.random.default_rng(seed), []
    for grey in greys:
        x = grey ** np.exp(rng.uniform(np.log(0.5), np.log(2)))
        x = (x - 0.5) * rng.uniform(0.6, 1.3) + 0.5 + rng.uniform(-0.1, 0.1)
        if rng.random() < 0.5:
            sigma = float(rng.uniform(0.4, 1.5))
            taps = torch.exp(-0.5 * (torch.arange(-4, 5) / sigma) ** 2)
            taps = (taps / taps.sum()).float()
            t = F.conv2d(torch.from_numpy(x.astype(np.float32))[None, None], taps.view(1, 1, -1, 1), padding=(4, 0))
            x = F.conv2d(t, taps.view(1, 1, 1, -1), padding=(0, 4))[0, 0].numpy()
        made.append(np.clip(x + rng.normal(0, rng.uniform(0, 0.06), x.shape), 0, 1).astype(np.float32))
    return np.stack(made)


def matched(greys: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """The site's greys onto the source's, by one curve for the whole site."""
    own, theirs = np.percentile(greys, QUANTILES), np.percentile(reference, QUANTILES)
    own, first = np.unique(own, return_index=True)
    return np.interp(greys, own, theirs[first]).astype(np.float32)


def compared(
    source: Pictures, site: Pictures, encoder: Encoder, features: tuple[Tensor, Tensor, Tensor]
) -> dict[str, Any]:
    """AUROC at the site: of each remedy, and learnt at the site itself (five parts of its patients in turn)."""
    known, own, drawn = features
    plain = learnt(known, source.there)
    wide = learnt(torch.cat((known, drawn)), np.concatenate([source.there] * (1 + RANDOM_COPIES)))
    reference, here = Statistics.of(known), Statistics.of(own)
    mapped = encoder(matched(site.greys, source.greys))
    chances = {
        "nothing": own @ plain[0].T + plain[1],
        "histogram": mapped @ plain[0].T + plain[1],
        "statistics": _by(own, aligned(*plain, reference, here)),
        "randomisation": own @ wide[0].T + wide[1],
        "randomisation and statistics": _by(own, aligned(*wide, reference, here)),
        "learnt at the site": crossed(own, site),
    }
    said: dict[str, Any] = {}
    for name, each in chances.items():
        score = each.flatten().double().numpy()
        found = resampling.estimate(resampling.auroc_of(score, site.there), site.patients)
        said[name] = found.as_json()
        base = chances["nothing"].flatten().double().numpy()
        said[name]["gain"] = resampling.estimate(_gain(score, base, site.there), site.patients).as_json()
    return said


def _by(features: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
    return features @ layer[0].T + layer[1]


def _gain(one: Any, other: Any, there: NDArray[np.bool_]) -> Callable[[Any], float]:
    first, second = resampling.auroc_of(one, there), resampling.auroc_of(other, there)
    return lambda weights: first(weights) - second(weights)


def crossed(features: Tensor, site: Pictures) -> Tensor:
    parts = np.array([sorted(set(site.patients)).index(each) % 5 for each in site.patients])
    scores = torch.zeros(len(features))
    for part in range(5):
        rest, here = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
        if len(here) and 0 < site.there[rest].sum() < len(rest):
            weight, bias = learnt(features[rest], site.there[rest])
            scores[here] = (features[here] @ weight.T + bias)[:, 0]
    return scores


def problem(name: str, pictures: Pictures, encoder: Encoder) -> list[dict[str, Any]]:
    plain = encoder(pictures.greys)
    drawn = [encoder(randomised(pictures.greys, seed)) for seed in range(RANDOM_COPIES)]
    said = []
    for each in sorted(set(pictures.sites)):
        here = np.array([site == each for site in pictures.sites])
        target = pictures.at(here)
        if min(target.there.sum(), (~target.there).sum()) < SMALLEST:
            continue
        away = np.flatnonzero(~here)
        features = plain[away], plain[np.flatnonzero(here)], torch.cat([part[away] for part in drawn])
        found = compared(pictures.at(~here), target, encoder, features)
        count = {
            "patients": len(set(target.patients)),
            "pictures": len(target.patients),
            "there": int(target.there.sum()),
        }
        said.append({"problem": name, "site": each, **count, "auroc": found})
    return said


def page(said: dict[str, Any]) -> str:
    remedies = list(said["sites"][0]["auroc"])
    lines = [
        "# What another institution or view costs, and what helps without labels",
        "",
        "    .venv/bin/python benchmarks/adaptation.py IMAGENET SETS DICOM",
        "",
        "AUROC at the site that was left out, 95 % by resampling its patients; in brackets the gain over doing "
        "nothing, patient by patient. A logistic layer on features of ImageNet, not the shipped networks. The "
        "statistics of a site are of the very pictures that are judged, without their labels.",
        "",
        "| problem | site | patients | pictures | " + " | ".join(remedies) + " |",
        "| --- | --- | --- | --- | " + " | ".join("---" for _ in remedies) + " |",
    ]
    for each in said["sites"]:
        cells = []
        for name in remedies:
            own = each["auroc"][name]
            gain = own["gain"]
            text = f"{own['value']:.3f} ({own['interval'][0]:.3f} to {own['interval'][1]:.3f})"
            if name != "nothing":
                text += f" [{gain['value']:+.3f}: {gain['interval'][0]:+.3f} to {gain['interval'][1]:+.3f}]"
            cells.append(text)
        lines.append(
            f"| {each['problem']} | {each['site']} | {each['patients']} | {each['pictures']} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("dicom", type=Path)
    parser.add_argument("--slices", type=int, default=8, help="of each brain")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoder = Encoder(args.imagenet)
    sites = problem("opacity, the other view", chest(args.sets, args.dicom), encoder)
    sites += problem(
        "tumour on a FLAIR slice, the institution left out", brain(args.sets, args.dicom, args.slices), encoder
    )
    said = {"sites": sites}
    (args.out / "adaptation.json").write_text(json.dumps(said, indent=1) + "\n")
    (args.out / "adaptation.md").write_text(page(said))
    print(page(said))


if __name__ == "__main__":
    main()
