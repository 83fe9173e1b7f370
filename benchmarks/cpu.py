"""How fast the networks of the shipped pipelines are on the CPU, and the whole of a study.

    .venv/bin/python benchmarks/cpu.py DICOM [--most 3] [--rounds 5] [NAME …]

DICOM: a folder with the sets as DICOM, as ``DICOM/head_ct_haemorrhage``. Each pipeline reads studies of its set; what
it hands its networks is kept. Then, by turns in one run and with one thread: MONAI's ``sliding_window_inference`` over
one window of those very images (a plain forward for classes), plain eager single precision; and our networks as the
pipeline runs them. Seconds are of the thread, not of the clock, for machines that are shared; whole studies also by
the clock, evidence included, loading excluded. Writes cpu.json and cpu.md beside this file.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.inferers import SimpleInferer, sliding_window_inference
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from node.settings import Settings
from pipelines import mr_brain, reading, registry
from pipelines.carded import Carded
from pipelines.imaging import CHANNELS, stack
from pipelines.models.ensemble import Ensemble
from pipelines.models.kinds import KINDS
from pipelines.models.shipped import Networks, finest
from pipelines.models.store import tensors_of
from pipelines.models.unet import NETWORKS
from pipelines.study import read_files
from pipelines.training.prepare import index_rows

SETS = {
    "ct_head": "head_ct_haemorrhage",
    "xc_skin": "skin_isic2017",
    "us_breast": "breast_us",
    "mr_brain_type": "brain_mri_tumour",
    "dx_chest": "cxr_nih",
    "ct_chest": "ct_lung_tumour_patches",
    "op_retina": "fundus_vessels",
    "gm_cells": "nuclei_dsb2018",
    "mr_heart": "cine_mr_lv",
    "mr_hippocampus": "hippocampus_mri",
    "mr_brain": "brain_mri_lgg",
}


class Plain(nn.Module):
    """A member as MONAI runs it: single precision, contiguous, nothing folded."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).float().to(memory_format=torch.contiguous_format)

    def forward(self, x: Tensor) -> Tensor:
        return finest(self.net(x))


def seconds_of(act: Callable[[], Tensor]) -> tuple[float, Tensor]:
    begun = time.thread_time()
    found = act()
    return time.thread_time() - begun, found


def networks_of(pipeline: Any) -> list[Networks | Ensemble]:
    """Wherever the pipeline keeps them; those of another pipeline that it asks are not its own."""
    if isinstance(pipeline, mr_brain.BrainTumour):
        return [pipeline.networks]
    held = [pipeline, *vars(pipeline).values()]
    found = [each.networks for each in held if isinstance(each, Carded)]
    return list({id(each): each for each in found}.values())


def kept(networks: Networks | Ensemble, role_images: dict[str, list[Tensor]]) -> None:
    """From now on the images that go in are kept, by role."""
    if isinstance(networks, Ensemble):
        chances = networks.probabilities

        def probabilities(images: Tensor, *, step: int = 1, batch: int = 8) -> Tensor:
            role_images.setdefault("outline", []).append(images.clone())
            return chances(images, step=step, batch=batch)

        networks.probabilities = probabilities  # type: ignore[method-assign]
        return
    own = networks.outputs

    def outputs(role: str, images: Tensor, *, batch: int = 16) -> list[Tensor]:
        role_images.setdefault(role, []).append(images.clone())
        return own(role, images, batch=batch)

    networks.outputs = outputs  # type: ignore[method-assign]


def originals(networks: Networks | Ensemble, role: str) -> list[Plain]:
    """The members of a role as the card's file has them."""
    made: dict[int, nn.Module]
    if isinstance(networks, Ensemble):
        tensors = tensors_of(mr_brain.CARD.with_suffix(".safetensors"))
        kinds = mr_brain.Card.read(mr_brain.CARD).networks
        made = {place: NETWORKS[kind](len(CHANNELS)) for place, kind in enumerate(kinds)}
    else:
        tensors, members = tensors_of(networks.weights), enumerate(networks.card.members)
        made = {place: KINDS[each.kind](**each.args) for place, each in members if each.role == role}
    for place, net in made.items():
        start = f"{place}."
        net.load_state_dict({key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)})
    return [Plain(net.eval()) for net in made.values()]


def asked(networks: Networks | Ensemble, role: str, images: Tensor, plain: list[Plain]) -> list[Callable[[], Tensor]]:
    """As MONAI would, and as the pipeline does: logits of each member; of ``mr_brain`` of both mirror images, too."""
    if isinstance(networks, Networks):
        return [lambda: _windowed(plain, images), lambda: Networks.logits(networks, role, images)]
    given = stack(images, torch.arange(len(images))).float()

    def theirs() -> Tensor:
        return torch.cat((_windowed(plain, given), _windowed(plain, given.flip(-1)).flip(-1)))

    return [theirs, lambda: Ensemble.probabilities(networks, images).logit()[None, :, None]]


def compared(networks: Networks | Ensemble, role: str, images: Tensor, rounds: int) -> dict[str, Any]:
    plain = originals(networks, role)
    as_monai, as_here = asked(networks, role, images, plain)
    theirs, ours = [], []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            spent, reference = seconds_of(as_monai)
            theirs.append(spent)
            spent, answer = seconds_of(as_here)
            ours.append(spent)
            is_mask = answer.dim() > 3
    ratio = statistics.median(a / b for a, b in zip(theirs[1:], ours[1:], strict=True))
    said: dict[str, Any] = {
        "role": role,
        "input": list(images.shape),
        "members": len(plain),
        "plain_s": round(statistics.median(theirs[1:]), 4),
        "ours_s": round(statistics.median(ours[1:]), 4),
        "times": round(ratio, 2),
    }
    return said | (_masks(reference, answer) if is_mask else _scores(reference, answer))


def _windowed(nets: list[Plain], images: Tensor) -> Tensor:
    """As MONAI would: each image a window; a batch of four windows, its default in bundles."""
    out = []
    for part in torch.split(images, 4):
        if part.dim() > 4 or _outlines(nets[0], part):
            out.append(
                torch.stack(
                    [sliding_window_inference(part, part.shape[2:], len(part), net, overlap=0.0) for net in nets]
                )
            )
        else:
            out.append(torch.stack([SimpleInferer()(part, net) for net in nets]))
    return torch.cat(out, 1)


_KIND: dict[int, bool] = {}


def _outlines(net: Plain, part: Tensor) -> bool:
    if id(net) not in _KIND:
        _KIND[id(net)] = net(part[:1]).dim() > 2
    return _KIND[id(net)]


def _masks(reference: Tensor, answer: Tensor) -> dict[str, Any]:
    """Dice of the outlines that the mean over the members gives."""
    if answer.dim() == 6:  # volumes: each voxel is of one label; pictures have masks that may overlap
        one, other = (each.softmax(2).mean(0).argmax(1) > 0 for each in (reference, answer))
    else:
        one, other = (each.sigmoid().mean(0) > 0.5 for each in (reference, answer))
    total = float(one.sum() + other.sum())
    return {"dice": round(2 * float((one & other).sum()) / total, 5) if total else 1.0}


def _scores(reference: Tensor, answer: Tensor) -> dict[str, Any]:
    apart = (reference.sigmoid().mean(0) - answer.sigmoid().mean(0)).abs().max()
    return {"largest_difference": round(float(apart), 5)}


def some_of(given: list[Tensor]) -> Tensor:
    """Eight images of one size; of a stack from its middle, where something is to be seen."""
    if len(given[0]) > 8:
        return given[0][(len(given[0]) - 8) // 2 :][:8]
    return torch.cat([x for x in given if x.shape[1:] == given[0].shape[1:]][:8])[:8]


def measured(name: str, data: Path, *, most: int, rounds: int) -> dict[str, Any]:
    pipeline = registry.load(Settings().pipelines[name].use)
    computes = registry.warm_up(pipeline)
    rows = index_rows(data, wanted=("dev",), columns=("study_uid", "file", "split"))
    chosen = list(dict.fromkeys(row["study_uid"] for row in rows))[: most + 1]
    studies, _ = read_files(data / row["file"] for row in rows if row["study_uid"] in chosen)
    images: dict[str, list[Tensor]] = {}
    held = networks_of(pipeline)
    for each in held:
        kept(each, images)
    walls, threads = [], []
    with tempfile.TemporaryDirectory() as out:
        for study in studies:
            job = reading.job_key(study, pipeline)
            begun, spent = time.perf_counter(), time.thread_time()
            runs = reading.read(study, pipeline, name=name, out=Path(out) / study.uid, job=job)
            if any(run.status == "read" for run in runs):
                walls.append(time.perf_counter() - begun)
                threads.append(time.thread_time() - spent)
    parts = [
        compared(each, role, some_of(given), rounds)
        for each in held
        for role, given in images.items()
    ]  # fmt: skip
    return {
        "pipeline": name,
        "version": pipeline.algorithm.version,
        "computes": computes,
        "studies": len(walls) - 1,
        "images": statistics.mean(sum(len(s.frames) for s in study.series) for study in studies),
        "study_s": round(statistics.median(walls[1:]), 3) if walls[1:] else None,  # the first warms up
        "study_thread_s": round(statistics.median(threads[1:]), 3) if threads[1:] else None,
        "networks": parts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--most", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = args.out / "cpu.json"
    said = json.loads(file.read_text()) if file.exists() else {"pipelines": []}
    for name in args.names or SETS:
        found = measured(name, args.data / SETS[name], most=args.most, rounds=args.rounds)
        said["pipelines"] = [each for each in said["pipelines"] if each["pipeline"] != name] + [found]
        said |= {"torch": torch.__version__, "processor": processor()}
        file.write_text(json.dumps(said, indent=1) + "\n")
        print(json.dumps(found))
    (args.out / "cpu.md").write_text(page(said))


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    return f"{name}; {', '.join(each for each in ('avx2', 'avx512f', 'avx512_bf16', 'amx_tile') if each in flags)}"


def page(said: dict[str, Any]) -> str:
    lines = [
        "# The networks on the CPU, against MONAI's plain eager single precision",
        "",
        "    .venv/bin/python benchmarks/cpu.py DICOM",
        "",
        f"One thread of {said['processor']}; torch {said['torch']}. Networks by turns in one run, seconds of the "
        "thread, medians. Whole studies: evidence included, loading excluded, medians without the first; the clock's "
        "seconds are of a machine that others used too.",
        "",
        "| pipeline | network | input | MONAI, plain | ours | times | equal |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in said["pipelines"]:
        for net in each["networks"]:
            same = f"Dice {net['dice']:.4f}" if "dice" in net else f"at most {net['largest_difference']:.4f} apart"
            size = "×".join(map(str, net["input"]))
            lines.append(
                f"| `{each['pipeline']}` {each['version']} | {net['role']} × {net['members']} | {size} | "
                f"{net['plain_s']:.3f} s | {net['ours_s']:.3f} s | {net['times']:.1f} | {same} |"
            )
    lines += [
        "",
        "| pipeline | images a study | whole study, thread | by the clock | studies |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in said["pipelines"]:
        if each["study_s"] is not None:
            lines.append(
                f"| `{each['pipeline']}` | {each['images']:.0f} | {each['study_thread_s']:.2f} s | "
                f"{each['study_s']:.2f} s | {each['studies']} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
