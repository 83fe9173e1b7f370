"""What learning from attacked pictures gives and costs: members of a classifier beside the same, trained on so.

    python -m benchmarks.hardened us_breast DICOM --labels SET --pair 0 MEMBER HARDENED --pair 1 …

A pair is a fold of train that neither has seen, the weights of a member, and those that ``wetread train --init MEMBER
--hardened SHARE --fold FOLD`` made of it. Both read the fold's pictures as they are and, some of them, as an attack on
themselves changes them (projected gradient descent, 7 steps). Writes hardened_NAME.json and .md beside this file.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.models import store
from pipelines.training.attack import STEPS, attacked
from pipelines.training.metrics import auroc
from pipelines.training.pack import facts_of
from pipelines.training.picture_tasks import Classify
from pipelines.training.recipes import Sources, recipe

BOUNDS = (1 / 255, 0.01)  # of white


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--part", default="class")
    parser.add_argument("--pair", nargs=3, action="append", required=True, metavar=("FOLD", "MEMBER", "HARDENED"))
    parser.add_argument("--most", type=int, default=60, help="pictures of each fold that are attacked")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[dict[str, Any]] = []
    for fold, *pair in args.pair:
        task = _task(args, int(fold), Path(pair[1]).parent / "cases")
        for file in map(Path, pair):
            net = task.network().eval()
            net.load_state_dict(store.tensors_of(file))
            share = float(facts_of(file).get("hardened", 0))
            lines.append({"fold": int(fold), "hardened": share, **_scores(net, task, args.most)})
            print(json.dumps(lines[-1]), flush=True)
    stem = Path(__file__).parent / f"hardened_{args.pipeline}"
    stem.with_suffix(".json").write_text(json.dumps(lines, indent=1) + "\n")
    stem.with_suffix(".md").write_text(page(args.pipeline, lines))


def _task(args: argparse.Namespace, fold: int, cache: Path) -> Classify:
    chosen = recipe(args.pipeline, args.part)
    sources = Sources(args.data, args.labels, cache, ("train",), print)
    task = chosen.task(sources, replace(chosen.options, fold=fold))
    assert isinstance(task, Classify)
    return task


def _scores(net: nn.Module, task: Classify, most: int) -> dict[str, Any]:
    """Of each class: the AUROC on all pictures of the fold, and on some of them as they are and attacked."""
    images, labels = task.judged.images.float() / 255, task.judged.labels
    few = torch.from_numpy(np.random.default_rng(0).permutation(len(images))[:most])

    def areas(shown: Tensor, truth: Tensor) -> dict[str, float | None]:
        with torch.inference_mode():
            logits = torch.cat([net(part) for part in torch.split(shown, 32)])
        chances = logits.softmax(1) if task.exclusive else logits
        found = {name: auroc(chances[:, i].numpy(), truth[:, i].numpy()) for i, name in enumerate(task.classes)}
        return {name: None if area is None else round(area, 3) for name, area in found.items()}

    def changed(bound: float) -> Tensor:
        torch.manual_seed(0)
        parts = []
        for shown, truth in zip(torch.split(images[few], 20), torch.split(labels[few], 20), strict=True):

            def lost(x: Tensor, truth: Tensor = truth) -> Tensor:
                if task.exclusive:
                    return F.cross_entropy(net(x), truth.argmax(1), reduction="sum")
                return F.binary_cross_entropy_with_logits(net(x), truth, reduction="sum")

            parts.append(attacked(shown, lost, bound=bound))
        return torch.cat(parts)

    return {
        "pictures": len(images),
        "as they are": areas(images, labels),
        "attacked": len(few),
        **{f"{bound:.2%} of white": areas(changed(bound), labels[few]) for bound in BOUNDS},
    }


def page(pipeline: str, lines: list[dict[str, Any]]) -> str:
    classes, bounds = list(lines[0]["as they are"]), [f"{bound:.2%} of white" for bound in BOUNDS]
    rows = [
        f"| {each['fold']} | {each['hardened'] or 'no'} | {name} | {each['as they are'][name]} (n {each['pictures']})"
        + "".join(f" | {each[bound][name]} (n {each['attacked']})" for bound in bounds)
        + " |"
        for each in lines
        for name in classes
    ]
    return "\n".join(
        [
            f"# {pipeline}: members, and the same hardened against attacks",
            "",
            f"    python -m benchmarks.hardened {pipeline} DICOM --labels SET --pair FOLD MEMBER HARDENED …",
            "",
            f"AUROC on folds of train that neither has seen; the attack is PGD of {STEPS} steps on the member itself.",
            "",
            f"| fold | hardened by | class | as they are | {' | '.join(f'moved by {bound}' for bound in bounds)} |",
            f"| {' | '.join(['---'] * (4 + len(bounds)))} |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
