"""Time of the network step of one study on a GPU: plain eager single precision, and what pays there.

    python benchmarks/gpu.py WEIGHTS CASE.npz

WEIGHTS is a member of ``mr_brain`` as ``wetread train`` writes it, CASE a patient of its folder ``cases``. Four ways in
one run, the median of ten each after three to warm up: slice by slice and in batches of 16, both single precision
without TF32, as a sliding window does by default; bfloat16 by autocast with channels last; weights and all in bfloat16,
as the node has them, as a CUDA graph.
Prints JSON; needs torch, safetensors and an NVIDIA GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipelines.imaging import CHANNELS, stack
from pipelines.models.store import tensors_of
from pipelines.models.unet import NETWORKS
from pipelines.training.metrics import dice
from pipelines.training.pack import facts_of

THRESHOLD = 0.4


def median(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds, and what it gave."""
    for _ in range(3):
        found = run()
    seconds = []
    for _ in range(10):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        found = run()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)[len(seconds) // 2], found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("case", type=Path)
    args = parser.parse_args()
    weights, case = args.weights, np.load(args.case)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net = NETWORKS[facts_of(weights)["network"]](len(CHANNELS))
    net.load_state_dict(tensors_of(weights))
    net = net.cuda().eval()
    images = torch.from_numpy(case["images"])
    x = stack(images, torch.arange(len(images))).float().cuda()

    def eager(batch: int) -> Tensor:
        return torch.cat([net(part)[0] for part in x.split(batch)]).sigmoid() > THRESHOLD

    by_one, _ = median(lambda: eager(1))
    by_sixteen, plain = median(lambda: eager(16))
    net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)

    def ours() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return torch.cat([net(part)[0].float() for part in x.split(32)]).sigmoid() > THRESHOLD

    half, masks = median(ours)
    net, x = net.bfloat16(), x.bfloat16()
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            net(x)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        logits = net(x)[0]

    def replayed() -> Tensor:
        graph.replay()
        return logits.float().sigmoid() > THRESHOLD

    captured, again = median(replayed)
    said = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "slices": len(images),
        "seconds": {
            "eager fp32, slice by slice": by_one,
            "eager fp32, batches of 16": by_sixteen,
            "bf16, channels last": half,
            "bf16, channels last, CUDA graph": captured,
        },
        "dice against fp32": {
            "bf16, channels last": dice(masks.cpu().numpy(), plain.cpu().numpy()),
            "bf16, channels last, CUDA graph": dice(again.cpu().numpy(), plain.cpu().numpy()),
        },
    }
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
