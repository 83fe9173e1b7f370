"""A mask of one image as polygons along the edges of its pixels.

Exact: the pixels inside a polygon are the pixels of the mask. Coordinates are (column, row) with the origin at the
top left corner of the top left pixel, whose centre is (0.5, 0.5) (PS3.3 C.18.6.1.2). Knows no DICOM.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_RISING = 0b0110  # right above and left below, which touch at the corner alone; bits as in _turns
_TURNS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0], np.uint8)  # how often an outline turns there


def outer_outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """One closed polygon (first point = last) per region of edge-connected pixels, without its holes; largest first.

    Args:
        mask: bool, shape (rows, columns).

    Returns:
        Arrays of (column, row), shape (points, 2).
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    cut, origin = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], np.array([columns[0], rows[0]])
    return sorted((loop + origin for loop in _loops(cut)[0]), key=lambda loop: -area(loop))


def short_outlines(mask: NDArray[np.bool_], most_points: int) -> list[NDArray[np.float64]]:
    """As ``outer_outlines``, but a region whose outline has too many points is cut between two rows, and again.

    The parts have together inside the very pixels that the one outline would have. Cut is where the fewest pixels
    hang together, in the middle half of the region's height, for each place that is cut may become a region.
    """
    found: list[NDArray[np.float64]] = []
    waiting = outer_outlines(mask)
    while waiting:
        polygon = waiting.pop()
        if len(polygon) <= most_points:
            found.append(polygon)
            continue
        inside = filled(polygon, mask.shape)
        below = np.flatnonzero(inside.any(axis=1))[1:]
        below = below[len(below) // 4 : len(below) - len(below) // 4]
        cut = below[np.argmin(np.count_nonzero(inside[below] & inside[below - 1], axis=1))]
        for half in (slice(None, cut), slice(cut, None)):
            part = np.zeros_like(inside)
            part[half] = inside[half]
            waiting += outer_outlines(part)
    return sorted(found, key=lambda loop: -area(loop))


def filled(polygon: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels (rows, columns) inside a closed polygon along the edges of pixels."""
    edges = np.zeros((shape[0], shape[1] + 1), np.bool_)
    corners = polygon.astype(np.intp)
    for (column, row), (following, last) in pairwise(corners.tolist()):
        if column == following:
            edges[min(row, last) : max(row, last), column] ^= True
    return np.logical_xor.accumulate(edges, axis=1)[:, :-1]


def closed_planar(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """As ``outer_outlines``, with the holes: each is tied to its outline by a channel of no width, to and fro.

    So one polygon alone has inside exactly the pixels of its region (the keyhole of PS3.3 C.8.8.6.3).
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    cut, origin = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], np.array([columns[0], rows[0]])
    outer, holes = _loops(cut)
    for hole in sorted(holes, key=lambda loop: loop[:, 1].min()):  # what lies above another is tied before it
        _tie(hole[::-1], outer)
    return sorted((loop + origin for loop in outer), key=lambda loop: -area(loop))


def _tie(hole: NDArray[np.float64], outer: list[NDArray[np.float64]]) -> None:
    """Go up from the uppermost edge of the hole to the next edge above: it is of the outline around, or tied to it.

    The way goes a quarter of a pixel beside the corner of pixels, so that it meets no corner and no pixel's centre.
    """
    top = next(i for i in range(len(hole) - 1) if hole[i, 1] == hole[i + 1, 1] == hole[:, 1].min())
    start = np.array([min(hole[top, 0], hole[top + 1, 0]) + 0.25, hole[top, 1]])
    height, which, edge = max(
        (loop[i, 1], which, i)
        for which, loop in enumerate(outer)
        for i in np.flatnonzero(_is_above(loop, start)).tolist()
    )
    end, loop = np.array([start[0], height]), outer[which]
    around = np.concatenate([[start], hole[top + 1 : -1], hole[: top + 1], [start]])
    outer[which] = np.concatenate([loop[: edge + 1], [end], around, [end], loop[edge + 1 :]])


def _is_above(loop: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which edges run along a row straight above the point."""
    a, b = loop[:-1], loop[1:]
    spans = (np.minimum(a[:, 0], b[:, 0]) < point[0]) & (point[0] < np.maximum(a[:, 0], b[:, 0]))
    return np.asarray(spans & (a[:, 1] == b[:, 1]) & (a[:, 1] < point[1]))


def area(polygon: NDArray[np.float64]) -> float:
    """Area in pixels by the shoelace formula; negative for a hole."""
    column, row = polygon[:-1].T
    following_column, following_row = polygon[1:].T
    return float(np.sum(column * following_row - following_column * row) / 2)


def _loops(mask: NDArray[np.bool_]) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """The outer outlines, with the mask inside, and those of holes, with the mask outside; both clockwise on a screen.

    Follow the pixel edges from turn to turn. Turns in one row of corners are joined two by two, as are those in one
    column: so each has one that follows it.
    """
    columns, rows, is_start, by_column = _turns(mask)
    down = np.empty(len(rows), np.intp)
    down[by_column[0::2]], down[by_column[1::2]] = by_column[1::2], by_column[0::2]
    points, vertical = np.stack([columns, rows], axis=1).astype(np.float64), down.tolist()
    loops: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    passed = bytearray(len(rows))
    for first in range(len(rows)):
        if passed[first]:
            continue
        turn = first
        loop: list[int] = []
        while not passed[turn]:
            along = turn ^ 1  # in the order of rows, turns 0 and 1 are the ends of one edge, 2 and 3 of the next
            passed[turn] = passed[along] = True
            loop += (turn, along)
            turn = vertical[along]
        loops[0 if is_start[first] else 1].append(points[[*loop, first]])
    return loops


def _turns(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]:
    """Where an outline turns, row by row: columns, rows, whether an outer outline can begin there, and by columns.

    A corner turns where one or three of the four pixels around it are in. Where two are in that touch at this corner
    alone it turns twice, and each turn stays with its own pixel.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    above, below = padded[:-1], padded[1:]
    # the pixels around each corner: left above 1, right above 2, left below 4, right below 8
    around = above[:, :-1] | above[:, 1:] << 1 | below[:, :-1] << 2 | below[:, 1:] << 3
    rows, columns = np.nonzero(_TURNS[around])
    kinds = around[rows, columns]
    times = _TURNS[kinds]
    rows, columns, kinds = (np.repeat(each, times) for each in (rows, columns, kinds))
    order = np.arange(len(rows))
    # of the two pixels of a rising diagonal the left one lies below
    first = np.flatnonzero(kinds == _RISING)[0::2]
    order[first], order[first + 1] = first + 1, first
    # the uppermost turn of an outer outline, of those the leftmost, has its pixel at the right below; a hole's has not
    return columns, rows, kinds & 8 > 0, order[np.argsort(columns[order], kind="stable")]
