"""From trained members to what ships: operating points on the folds that each has not seen, then one file and its card.

    python -m pipelines.training.ship --member 0=runs/a/weights.safetensors --member 1=runs/b/weights.safetensors \\
        --data DICOM --labels MASKS --card pipelines/weights/mr_brain-1.0.0.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.training.metrics import dice
from pipelines.training.operate import choose, judge_folds
from pipelines.training.pack import pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--member", action="append", required=True, metavar="FOLD=WEIGHTS", help="a fold that it has not seen"
    )
    parser.add_argument("--data", type=Path, required=True, help="DICOM studies with index.csv")
    parser.add_argument("--labels", type=Path, required=True, help="the folder that the masks' paths start from")
    parser.add_argument("--card", type=Path, required=True, help="the JSON card to write; the weights lie beside it")
    parser.add_argument("--version", default="1.0.0")
    args = parser.parse_args()
    members = {int(fold): Path(file) for fold, file in (each.split("=", 1) for each in args.member)}
    judged = judge_folds(members, args.data, args.labels, said=lambda note: print(note, file=sys.stderr))  # noqa: T201
    point, score = choose(judged)
    plain = float(np.mean([_plain_dice(each.probability, each.truth) for each in judged]))
    pack(list(members.values()), args.card, point, name="mr_brain", version=args.version)
    print(f"{len(judged)} patients, mean Dice {score:.3f} at {point} ({plain:.3f} at 0.5 without clean-up)")  # noqa: T201


def _plain_dice(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:

    return dice(probability > 0.5, truth)


if __name__ == "__main__":
    main()
