"""What a step of training costs on a processor, as the loop takes it and as torch does by itself.

    python -m benchmarks.training_step

The loop lays the channels of a pixel side by side and keeps the memory that a step frees (``training/placing.py``); its
peer is the same network in the same precision without either. Each is a process of its own, with one thread, by turns;
seconds of the processor, kernel included, the least of three. Writes ``training_step.json`` and ``.md`` beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

STEPS = {
    "mobile_classifier": ({"channels": 3, "outputs": 1}, (32, 3, 224, 224)),
    "squeeze_outliner": (
        {"channels": 1, "inner": [16, 32, 48, 64], "outputs": 3, "deepest": 96},
        (16, 1, 256, 256),
    ),
    "residual": ({"channels": 9}, (16, 9, 192, 160)),
    "residual3d": ({"labels": 2}, (2, 1, 64, 64, 64)),
}
ROUNDS = 3
HERE = Path(__file__).parent


def main() -> None:
    if sys.argv[1:]:
        print(_seconds(sys.argv[1], ours=sys.argv[2] == "ours"))
        return
    found = {kind: {way: [] for way in ("plain", "ours")} for kind in STEPS}
    for turn in range(ROUNDS):
        for kind, ways in found.items():
            for way, seconds in ways.items():
                seconds.append(_asked(kind, way))
                print(f"round {turn + 1} of {ROUNDS}, {kind}, {way}: {seconds[-1]:.2f} s", file=sys.stderr)
    least = {kind: {way: min(seconds) for way, seconds in ways.items()} for kind, ways in found.items()}
    (HERE / "training_step.json").write_text(json.dumps(least, indent=1) + "\n")
    (HERE / "training_step.md").write_text(_page(least))


def _asked(kind: str, way: str) -> float:
    command = [sys.executable, "-m", "benchmarks.training_step", kind, way]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE.parent, env=env).stdout)


def _seconds(kind: str, *, ours: bool) -> float:
    """Of the processor for one step, the least of three."""
    import torch

    from pipelines.models.folding import laid_out
    from pipelines.models.kinds import KINDS
    from pipelines.training.placing import keep_freed

    torch.set_num_threads(1)
    args, shape = STEPS[kind]
    net = KINDS[kind](**args).train()
    if ours:
        keep_freed()
        laid_out(net)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4)
    images = torch.rand(shape)
    least = float("inf")
    for _ in range(5):  # the first two warm up
        begun = os.times()
        optimizer.zero_grad()
        outputs = net(images)
        (outputs if isinstance(outputs, torch.Tensor) else outputs[0]).mean().backward()
        optimizer.step()
        ended = os.times()
        least = min(least, ended.user - begun.user + ended.system - begun.system)
    return least


def _page(least: dict[str, dict[str, float]]) -> str:
    rows = [
        f"| `{kind}` | {'×'.join(map(str, STEPS[kind][1]))} | {ways['plain']:.2f} | {ways['ours']:.2f} "
        f"| {ways['plain'] / ways['ours']:.1f} |"
        for kind, ways in least.items()
    ]
    head = (
        "# A step of training on a processor\n\n    python -m benchmarks.training_step\n\n"
        "Seconds of one core for forward, backward and AdamW in single precision: torch by itself, and as the loop\n"
        "places things (channels side by side, freed memory kept). The least of nine steps in three processes each,\n"
        "by turns, on a machine that other programs shared.\n\n"
        "| network | batch | torch by itself | ours | times as fast |\n"
        "| --- | --- | --- | --- | --- |\n"
    )
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
