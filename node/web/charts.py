"""Bars per hour as SVG, drawn on the server: no script, no outside address, colours from the stylesheet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from markupsafe import Markup, escape

WIDTH, HEIGHT, FOOT = 288, 64, 14  # of the viewBox: a picture scales with the page


def bars(values: Sequence[int], *, begins: float, step: float, title: str, kind: str) -> Markup:
    """One bar per value, from the left; the hours of the day below.

    Args:
        begins: When the first value begins, in seconds since the epoch; each is ``step`` seconds wide.
        kind: The class of the bars, by which they get their colour.
    """
    most = max(values, default=0)
    wide = WIDTH / max(len(values), 1)
    drawn = []
    for index, value in enumerate(values):
        when = _clock(begins + index * step)
        high = 0 if not value else max(2.0, value / most * HEIGHT)
        said = escape(f"{when}: {value}")
        # the whole column answers the pointer, not the bar alone
        drawn.append(
            f"<g><title>{said}</title>"
            f'<rect class="column" x="{index * wide:.1f}" y="0" width="{wide:.1f}" height="{HEIGHT}"/>'
            f'<rect class="{kind}" x="{index * wide + 1:.1f}" y="{HEIGHT - high:.1f}" width="{wide - 2:.1f}" '
            f'height="{high:.1f}" rx="1"/></g>'
        )
        if index % 6 == 0:
            drawn.append(f'<text x="{index * wide:.1f}" y="{HEIGHT + FOOT - 2}">{when}</text>')
    label = escape(f"{title}: at most {most} in an hour, {values[-1] if values else 0} in the one that runs")
    return Markup(  # noqa: S704  every text in it is escaped above
        f'<svg class="bars" viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{label}">'
        f'<line class="ground" x1="0" y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}"/>{"".join(drawn)}</svg>'
    )


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%H:%M}"
