"""A mask of one image as polygons along the edges of its pixels.

Exact: the pixels inside a polygon are the pixels of the mask. Coordinates are (column, row) with the origin at the
top left corner of the top left pixel, whose centre is (0.5, 0.5) (PS3.3 C.18.6.1.2). Knows no DICOM.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

_Corner = tuple[int, int]  # (column, row)


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
    loops = [(area(loop), loop + origin) for loop in _loops(cut)]
    outer = [(size, loop) for size, loop in loops if size > 0]  # a hole runs the other way round
    return [loop for _, loop in sorted(outer, key=lambda each: -each[0])]


def area(polygon: NDArray[np.float64]) -> float:
    """Area in pixels by the shoelace formula; negative for a hole."""
    column, row = polygon[:-1].T
    following_column, following_row = polygon[1:].T
    return float(np.sum(column * following_row - following_column * row) / 2)


def _loops(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Follow the pixel edges with the mask on the right hand (rows grow downwards), corner by corner."""
    ways = _edges(mask)
    remaining = {(start, end) for start, ends in ways.items() for end in ends}
    loops: list[NDArray[np.float64]] = []
    for first in [(start, end) for start, ends in ways.items() for end in ends]:
        edge, corners = first, [first[0]]
        while edge in remaining:  # each edge has one that follows it, so we come back to the first
            remaining.remove(edge)
            corners.append(edge[1])
            edge = (edge[1], _next_corner(ways, *edge))
        if len(corners) > 1:
            loops.append(_without_points_on_lines(np.array(corners, dtype=np.float64)))
    return loops


def _edges(mask: NDArray[np.bool_]) -> dict[_Corner, list[_Corner]]:
    """Directed edges between a pixel that is in and a neighbour that is out, by the corner that they start from."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    # (neighbour is out, start of the edge, end of the edge), as offsets from the pixel's top left corner
    sides = (
        (~padded[:-2, 1:-1], (0, 0), (1, 0)),  # top edge, to the right
        (~padded[1:-1, 2:], (1, 0), (1, 1)),  # right edge, downwards
        (~padded[2:, 1:-1], (1, 1), (0, 1)),  # bottom edge, to the left
        (~padded[1:-1, :-2], (0, 1), (0, 0)),  # left edge, upwards
    )
    ways: dict[_Corner, list[_Corner]] = defaultdict(list)
    for out, start, end in sides:
        for row, column in np.argwhere(inside & out).tolist():
            ways[column + start[0], row + start[1]].append((column + end[0], row + end[1]))
    return ways


def _next_corner(ways: dict[_Corner, list[_Corner]], start: _Corner, end: _Corner) -> _Corner:
    """Where two pixels touch at a corner alone, two ways go on: the turn to the right stays with the same pixel."""
    if len(ways[end]) == 1:
        return ways[end][0]
    return end[0] - (end[1] - start[1]), end[1] + (end[0] - start[0])


def _without_points_on_lines(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Only the corners where the direction changes."""
    ring = corners[:-1]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = ring[(before != after).any(axis=1)]
    return np.concatenate([turns, turns[:1]])
