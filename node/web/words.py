"""Numbers as people read them. Pure: the time is handed in."""

from __future__ import annotations

from datetime import datetime


def seconds(value: float | None) -> str:
    """A duration: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if value is None:
        return "–"
    value = max(value, 0.0)
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    for unit, size, below, under in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // under
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def moment(value: float | None, now: float) -> str:
    """A time of this machine's zone; with its date where that is not today."""
    if value is None:
        return "–"
    then, today = datetime.fromtimestamp(value), datetime.fromtimestamp(now)
    return f"{then:%H:%M:%S}" if then.date() == today.date() else f"{then:%Y-%m-%d %H:%M}"


def size(value: float) -> str:
    """Bytes: 12 kB, 3.4 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit in ("B", "kB") or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def short(uid: str) -> str:
    """The end of a UID, by which people tell studies apart."""
    return uid if len(uid) <= 20 else f"…{uid[-18:]}"


def number_of(count: int, one: str) -> str:
    """1 image, 2 images."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"
