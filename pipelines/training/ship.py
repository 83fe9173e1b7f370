"""From trained members to what ships: operating points on the folds that each has not seen, then one file and its card.

    python -m pipelines.training.ship --member 0=runs/a/weights.safetensors --member 1=runs/b/weights.safetensors \\
        --data DICOM --labels MASKS --card pipelines/weights/mr_brain-1.1.0.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.training.metrics import dice
from pipelines.training.operate import choose, judge_folds
from pipelines.training.pack import facts_of, pack


class SeenPatients(ValueError):
    """A member would be judged by patients that it was trained on, or one fold by two members."""


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
    try:
        members = members_of(args.member)
        judged = judge_folds(members, args.data, args.labels, said=lambda note: print(note, file=sys.stderr))  # noqa: T201
        point, score = choose(judged)
        pack(list(members.values()), args.card, point, name="mr_brain", version=args.version)
    except ValueError as error:
        parser.error(str(error))
    plain = float(np.mean([dice(each.probability > 0.5, each.truth) for each in judged]))
    print(f"{len(judged)} patients, mean Dice {score:.3f} at {point} ({plain:.3f} at 0.5 without clean-up)")  # noqa: T201


def members_of(given: Sequence[str]) -> dict[int, Path]:
    """``FOLD=WEIGHTS`` each → fold: weights, in that order.

    Raises:
        SeenPatients: If the weights do not say that they left out that fold, or two are given for one fold.
    """
    members: dict[int, Path] = {}
    for each in given:
        fold, _, name = each.partition("=")
        if not fold.isdigit() or not Path(name).is_file():
            raise ValueError(f"--member {each}: FOLD=WEIGHTS, with a fold's number and a file that is there")
        held = facts_of(Path(name)).get("fold", "unknown")
        if held != str(int(fold)):
            raise SeenPatients(f"{name} left out the fold {held}, not {fold}: its patients cannot judge it")
        if int(fold) in members:
            raise SeenPatients(f"two members left out the fold {fold}: one is judged by it, the other by nothing")
        members[int(fold)] = Path(name)
    return members


if __name__ == "__main__":
    main()
