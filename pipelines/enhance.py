"""The pipeline ``enhance``: a series again with less noise, and beside it what was taken away, as a map.

    series → how strong its noise is → a network says what of it is noise → a model observer looks at faint discs,
    before and after → as much of the noise is taken away as leaves them as visible as before, or nothing is made

It says nothing of what the pictures show. A picture that looks smoother is no better for that: the observer
(``observer``) decides, anew for every series, and the report says what it saw.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines import observer
from pipelines.base import DerivedSeries, Findings, UnsuitableStudy, WithheldStudy
from pipelines.carded import Carded
from pipelines.domain import Domain
from pipelines.evidence import codes
from pipelines.evidence.derived import underivable
from pipelines.instance import number, text
from pipelines.noise import strength
from pipelines.observer import Visibility
from pipelines.pictures import by_size
from pipelines.pixels import BadPixels
from pipelines.series import Series
from pipelines.study import Study

CARD = Path(__file__).parent / "weights" / "enhance-1.0.0.json"
CT_WINDOW = (0.0, 80.0)  # HU; beyond, nothing is changed
WHITEST = 99.5  # percentile of an MR series that is white
LOOKED_AT = 12  # slices that the observer looks at
LEAST = 0.98  # of the noise, left: a series that is the same again helps nobody
MAGNIFIED = 4  # so much stronger than it was is the noise in its map
DOMAINS = {
    "mr": Domain(
        "MR of brain or heart",
        frozenset({"MR"}),
        frozenset({"BRAIN", "HEAD", "HEART", "CARDIAC"}),
        r"brain|head|heart|cardiac|cine",
        smallest=96,
    ),
    "ct": Domain("CT of the head", frozenset({"CT"}), frozenset({"HEAD", "BRAIN"}), r"head|brain|crani", smallest=96),
    "us": Domain("ultrasound of a breast", frozenset({"US"}), frozenset({"BREAST"}), r"breast|mamma", smallest=96),
}


@dataclass(frozen=True, eq=False)
class Scaled:
    """A volume on the scale that the networks know.

    Attributes:
        images: float32 (frames, 1, rows, columns); black 0 and white 1.
        black, white: Modality values.
        is_cut: Whether what lies beyond black and white is not seen by the network, and not changed.
    """

    images: Tensor
    black: float
    white: float
    is_cut: bool

    def changeable(self) -> Tensor:
        """bool, of the shape of ``images``."""
        return (self.images > 0.005) & (self.images < 0.995) if self.is_cut else torch.ones_like(self.images).bool()


@dataclass(frozen=True, eq=False)
class Denoised:
    """What may be taken away from a volume.

    Attributes:
        noise: float32 (frames, rows, columns), modality values.
        share: Of what the network found; so much leaves faint discs as visible as before.
        before, after: Deviation of the noise in smooth tissue, modality values.
    """

    noise: NDArray[np.float32]
    share: float
    seen: tuple[Visibility, ...]
    before: float
    after: float


class Enhance(Carded):
    """Denoises MR, CT and US; the networks stay warm in the instance."""

    def __init__(self, card: Path = CARD, *, device: str | None = None) -> None:
        super().__init__(card, device=device)

    def __call__(self, study: Study) -> tuple[Findings, ...]:
        runs: list[Findings] = []
        refused: list[str] = []
        for series, role in readable(study):
            try:
                runs.append(self._read(series, role))
            except WithheldStudy as reason:
                refused.append(f"series {series.description or series.uid}: {reason}")
        if not runs:
            raise WithheldStudy("; ".join(refused))
        return (replace(runs[0], notes=(*runs[0].notes, *refused)), *runs[1:])

    def _read(self, series: Series, role: str) -> Findings:
        begun = time.perf_counter()
        try:
            volume = series.volume()
        except BadPixels as reason:
            raise WithheldStudy(f"the pictures cannot be read: {reason}") from reason
        loaded = time.perf_counter()
        shown = scaled(volume, role, series)
        made = self.denoised(shown, role)
        middle = (shown.black + shown.white) / 2
        clean = DerivedSeries(
            series, volume - made.noise, _named(series, "denoised"), codes.SMOOTHING, _what_was_done(made)
        )
        residual = DerivedSeries(
            series,
            (middle + MAGNIFIED * made.noise).astype(np.float32),
            _named(series, "taken away"),
            codes.SUBTRACTION,
            f"What was taken away as noise, {MAGNIFIED} times as strong; {middle:g} stands for nothing",
        )
        stages = {"load": loaded - begun, "network": time.perf_counter() - loaded}
        return Findings(series, (), (series,), tuple(_notes(made)), self.device, stages, (clean, residual))

    def denoised(self, shown: Scaled, role: str) -> Denoised:
        """
        Raises:
            WithheldStudy: If no share of the noise can be taken away without hiding something faint.
        """
        points = self.card.points[role]
        levels = _levels(shown.images)
        if not levels.any():
            raise WithheldStudy("there is no tissue to see the noise in")
        noise = self._noise(shown, role, levels)
        try:
            answers = self.answers(shown, role)
        except observer.TooFewPlaces as reason:
            raise WithheldStudy(f"whether faint things would stay visible cannot be told: {reason}") from reason
        for share in points["shares"]:
            seen = tuple(each.visibility(share) for each in answers)
            if all(each.low >= points["at_least"] for each in seen):
                after = _levels(shown.images - share * noise)
                if float(after.median()) > LEAST * float(levels.median()):
                    raise WithheldStudy("the pictures hold hardly any noise that may be taken away")
                unit = shown.white - shown.black
                away = (share * unit * noise[:, 0]).numpy()
                return Denoised(away, share, seen, unit * float(levels.median()), unit * float(after.median()))
        worst = min(seen, key=lambda each: each.low)
        raise WithheldStudy(
            f"faint discs of {worst.diameter} pixels would be seen {worst.ratio:.2f} times as well as before "
            f"({worst.low:.2f} to {worst.high:.2f})"
        )

    def answers(self, shown: Scaled, role: str) -> list[observer.Responses]:
        """What the observer says of each disc, on some of the slices.

        Raises:
            TooFewPlaces: If there is too little smooth tissue.
        """
        count = len(shown.images)
        slices = torch.from_numpy(np.unique(np.linspace(0, count - 1, LOOKED_AT).round().astype(int)))
        part, levels = replace(shown, images=shown.images[slices]), _levels(shown.images)[slices]

        def noise_of(images: Tensor) -> Tensor:
            return self._noise(replace(part, images=images), role, levels)

        return observer.responses(part.images, noise_of, levels, self.card.points[role]["diameters"])

    def _noise(self, shown: Scaled, role: str, levels: Tensor) -> Tensor:
        """Of the shape of ``shown.images``: the mean over the networks, and 0 where nothing may be changed."""
        seen = shown.images.clamp(0, 1) if shown.is_cut else shown.images
        both = torch.cat((seen, levels.view(-1, 1, 1, 1).expand_as(seen)), 1)
        return self._networks.logits(role, both, batch=4).mean(0) * shown.changeable()


def readable(study: Study) -> list[tuple[Series, str]]:
    """The series of the study that can be denoised, parted by size, and the networks that do it.

    Raises:
        UnsuitableStudy: If there is none.
    """
    found: list[tuple[Series, str]] = []
    said: list[str] = []
    for series in study.series:
        for role, domain in DOMAINS.items():
            if series.modality in domain.modalities:
                reason = domain.objection(series) or underivable(series.header) or _objection(series)
                said += [reason] if reason else []
                found += [] if reason else [(part, role) for part in by_size(series)]
    if not found:
        named = ", ".join(domain.what for domain in DOMAINS.values())
        raise UnsuitableStudy(f"no series is one of {named}: {'; '.join(dict.fromkeys(said)) or 'other modalities'}")
    return found


def _objection(series: Series) -> str | None:
    if text(series.header, "PhotometricInterpretation") != "MONOCHROME2":
        return "the pictures are not grey with black for nothing (MONOCHROME2)"
    return None


def scaled(volume: NDArray[np.float32], role: str, series: Series) -> Scaled:
    """A volume (frames, rows, columns) of modality values, as the networks of ``role`` see it."""
    bits = int(number(series.header, "BitsStored") or 8)
    black, white = {
        "mr": (0.0, max(float(np.percentile(volume, WHITEST)), 1e-6)),
        "ct": CT_WINDOW,
        "us": (0.0, float((1 << bits) - 1)),
    }[role]
    images = torch.from_numpy((volume - np.float32(black)) / np.float32(white - black))[:, None]
    return Scaled(images, black, white, is_cut=role != "mr")


def _levels(images: Tensor) -> Tensor:
    """(N,): the deviation of the noise of each picture; of one without tissue, that of the others."""
    found = torch.cat([strength(part) for part in torch.split(images, 1)])
    usual = found[found > 0].median() if bool((found > 0).any()) else found.new_zeros(())
    return torch.where(found > 0, found, usual)


def _named(series: Series, what: str) -> str:
    """A Series Description; who and what come first, for lists show some 24 characters of it."""
    return f"AI: {what} (not verified) {series.description}"[:64].strip()


def _what_was_done(made: Denoised) -> str:
    return (
        f"Residual network, {made.share:.0%} of the noise that it found taken away; "
        f"deviation in smooth tissue {made.before:.3g} before, {made.after:.3g} after"
    )


def _notes(made: Denoised) -> Sequence[str]:
    seen = "; ".join(
        f"of {each.diameter} pixels (d' {each.before:.1f}) {each.ratio:.2f} ({each.low:.2f} to {each.high:.2f})"
        for each in made.seen
    )
    return (
        f"{_what_was_done(made)}",
        f"a model observer sees faint discs so many times as well as before (5th to 95th percentile over "
        f"{made.seen[0].places} places): {seen}",
    )
