"""Pipelines that are quick, or that misbehave: real ones, by the Protocol, without torch."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.base import Algorithm, Earlier, Finding, Findings, Measurement, Segment, UnsuitableStudy
from pipelines.evidence import codes
from pipelines.study import Study


class Quick:
    """Says at once that there is nothing; studies whose PatientID begins with POISON bring it down."""

    name = "quick"

    @property
    def algorithm(self) -> Algorithm:
        return Algorithm(self.name, "1.0.0", codes.ARTIFICIAL_INTELLIGENCE, "ab" * 32)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        self.misbehave(study)
        return (
            Findings(study.series[0], (Finding(codes.LESION, present=False, certainty=0.1),), stages={"network": 0.0}),
        )

    def misbehave(self, study: Study) -> None:
        if str(study.header.PatientID).startswith("POISON"):
            crash()


class Bleeds(Quick):
    """Finds a bleeding in every study but that of a patient whose ID begins with WELL."""

    name = "bleeds"

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        is_there = not str(study.header.PatientID).startswith("WELL")
        found = Finding(codes.HEMORRHAGE, present=is_there, certainty=0.97 if is_there else 0.02)
        return (Findings(study.series[0], (found,), stages={"network": 0.0}),)


def crash() -> None:
    ctypes.string_at(0)  # SIGSEGV


class Outlines(Quick):
    """Outlines a block on every slice; its weights are those that $WEIGHTS_FOR_TESTS names."""

    name = "outlines"

    @property
    def algorithm(self) -> Algorithm:
        return replace(super().algorithm, weights_digest=os.environ.get("WEIGHTS_FOR_TESTS", "ab" * 32))

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        series = study.series[0]
        mask = np.zeros((len(series.frames), int(series.header.Rows), int(series.header.Columns)), np.bool_)
        mask[:, 4:9, 5:12] = True
        block = Segment("block", mask, codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE, codes.LESION)
        return (Findings(series, (Finding(codes.LESION, present=True, certainty=0.9, segment=block),)),)


class Grows(Outlines):
    """Outlines a block of 2 cm³ in a first study, of 3 cm³ in one of 2027 or later, and says what changed."""

    name = "grows"

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        size = 3.0 if str(study.header.StudyDate) >= "2027" else 2.0
        (answer,) = super().__call__(study)
        volume = Measurement(codes.VOLUME, size, codes.CUBIC_CENTIMETER)
        (found,) = answer.findings
        return (replace(answer, findings=(replace(found, label="block", measurements=(volume,)),)),)

    def since(self, findings: Findings, volumes: Mapping[str, float], earlier: Earlier) -> Findings:
        (found,) = findings.findings
        grown = found.measurements[0].value - volumes["block"]
        change = Measurement(codes.CHANGE_OF_VOLUME, grown, codes.CUBIC_CENTIMETER, 0.25, earlier)
        return replace(findings, findings=(replace(found, measurements=(*found.measurements, change)),))


class Segfaults(Quick):
    def misbehave(self, study: Study) -> None:
        crash()


class IsKilled(Quick):
    def misbehave(self, study: Study) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Loops(Quick):
    def misbehave(self, study: Study) -> None:
        while True:
            time.sleep(0.05)


class Allocates(Quick):
    """More in one piece than the limit of private memory allows."""

    def misbehave(self, study: Study) -> None:
        np.ones((8 << 30,), dtype=np.uint8)


class GrowsUnseen(Quick):
    """Memory that RLIMIT_DATA does not count: shared, as a GPU's driver has it."""

    def misbehave(self, study: Study) -> None:
        import mmap

        held = []
        while True:
            held.append(mmap.mmap(-1, 64 << 20))
            held[-1].write(b"x" * (64 << 20))


class Raises(Quick):
    def misbehave(self, study: Study) -> None:
        raise OSError("the network is not in the mood")


class Moody(Quick):
    """Raises for as long as the file that $TESTS_MOOD names is not there."""

    def misbehave(self, study: Study) -> None:
        if not Path(os.environ["TESTS_MOOD"]).exists():
            raise OSError(os.environ.get("TESTS_SAYS", "the network is not in the mood"))


class CrashesForNow(Quick):
    """Crashes for as long as the file that $TESTS_MOOD names is not there."""

    def misbehave(self, study: Study) -> None:
        if not Path(os.environ["TESTS_MOOD"]).exists():
            crash()


class Unsuitable(Quick):
    def misbehave(self, study: Study) -> None:
        raise UnsuitableStudy("this pipeline reads nothing at all")


class Damaged(Quick):
    """Its weights are damaged for as long as the file that $TESTS_WEIGHTS names is not there."""

    def __init__(self) -> None:
        weights = Path(os.environ["TESTS_WEIGHTS"])
        if not weights.exists():
            raise ValueError(f"the weights {weights.name} are damaged")


class Prints(Quick):
    def misbehave(self, study: Study) -> None:
        sys.stdout.write("{}\n")
        os.write(1, b"noise\n")
        sys.stdout.flush()


class Slow(Quick):
    """Takes as many seconds as $TESTS_SECONDS says."""

    def misbehave(self, study: Study) -> None:
        time.sleep(float(os.environ["TESTS_SECONDS"]))


class Tells(Quick):
    """Raises with what it sees of its process, so that a test can read it."""

    def misbehave(self, study: Study) -> None:
        seen = [f"{key}={os.environ.get(key)}" for key in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PACS_PASSWORD")]
        raise OSError(f"pid={os.getpid()} and {' '.join(seen)}")


class NoRoomOnGpu(Quick):
    """Says what torch says when a GPU's memory is full; with no GPU to see, it reads."""

    def misbehave(self, study: Study) -> None:
        if os.environ["CUDA_VISIBLE_DEVICES"]:
            raise RuntimeError("CUDA out of memory. Tried to allocate 80.00 GiB.")


class SlowToLoadOnTheCpu(NoRoomOnGpu):
    """Where there is no GPU to see, it takes as many seconds to load as $TESTS_SECONDS says."""

    def __init__(self) -> None:
        if not os.environ["CUDA_VISIBLE_DEVICES"]:
            time.sleep(float(os.environ["TESTS_SECONDS"]))


class WarmsUp(Quick):
    """Has something to do once, and reads nothing before it was done."""

    is_warm = False

    def warm_up(self) -> str:
        self.is_warm = True
        return "single precision"

    def misbehave(self, study: Study) -> None:
        if not self.is_warm:
            raise OSError("it is cold")
