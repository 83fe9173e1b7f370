"""Outlines: the pixels inside a polygon are the pixels of the mask."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from pipelines.evidence.outlines import area, closed_planar, filled, outer_outlines, short_outlines

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def inside(polygon, shape):
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for (x0, y0), (x1, y1) in pairwise(polygon):
        if x0 == x1:
            crossings[int(min(y0, y1)) : int(max(y0, y1)), int(x0)] += 1
    return np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_the_polygons_enclose_the_mask_with_its_holes_filled(mask):
    regions, count = ndimage.label(mask)
    filled = np.zeros_like(mask)
    for region in range(1, count + 1):
        filled |= ndimage.binary_fill_holes(regions == region, np.ones((3, 3)))
    drawn = np.zeros_like(mask)
    for polygon in outer_outlines(mask):
        drawn |= inside(polygon, mask.shape)
    assert np.array_equal(drawn, filled)


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_each_region_has_one_closed_polygon(mask):
    polygons = outer_outlines(mask)
    assert len(polygons) == ndimage.label(mask)[1]
    assert all((polygon[0] == polygon[-1]).all() for polygon in polygons)


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_what_is_cut_to_short_outlines_has_the_same_pixels_inside(mask):
    whole, cut = np.zeros_like(mask), np.zeros_like(mask)
    for polygon in outer_outlines(mask):
        whole |= inside(polygon, mask.shape)
    for polygon in short_outlines(mask, 7):
        assert len(polygon) <= 7
        assert np.array_equal(filled(polygon, mask.shape), inside(polygon, mask.shape))
        cut |= inside(polygon, mask.shape)
    assert np.array_equal(cut, whole)


@given(MASKS)
def test_the_largest_comes_first(mask):
    areas = [area(polygon) for polygon in outer_outlines(mask)]
    assert areas == sorted(areas, reverse=True)


def test_one_pixel_is_a_square_around_its_centre():
    mask = np.zeros((4, 5), np.bool_)
    mask[1, 2] = True
    (polygon,) = outer_outlines(mask)
    assert sorted(map(tuple, polygon[:-1])) == [(2, 1), (2, 2), (3, 1), (3, 2)]
    assert area(polygon) == 1


def test_a_straight_edge_has_no_points_between():
    (polygon,) = outer_outlines(np.ones((30, 40), np.bool_))
    assert len(polygon) == 5


def test_an_empty_mask_has_no_outline():
    assert outer_outlines(np.zeros((3, 3), np.bool_)) == []


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_a_closed_planar_polygon_has_inside_its_region_and_not_the_holes(mask):
    polygons = closed_planar(mask)
    assert len(polygons) == ndimage.label(mask)[1]
    drawn = sum((inside(polygon, mask.shape).astype(int) for polygon in polygons), np.zeros(mask.shape, int))
    assert np.array_equal(drawn, mask)
    assert sum(map(area, polygons)) == mask.sum()  # of holes it is negative: a channel has none


def test_an_island_in_a_hole_is_a_polygon_of_its_own():
    mask = np.ones((7, 7), np.bool_)
    mask[1:6, 1:6] = False
    mask[3, 3] = True
    ring, island = closed_planar(mask)
    assert (area(ring), area(island)) == (24, 1)
