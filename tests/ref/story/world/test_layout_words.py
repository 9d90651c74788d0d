"""Places and relations: what the sampler makes passes the checker, and a mirrored scene does not."""

from __future__ import annotations

import numpy as np
import pytest

from mgcc_ref.story.stories import make_story
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.story.world.layout_words import (
    INVERSE,
    PLACES,
    REGIONS,
    PlaceFact,
    Relation,
    RelationFact,
    is_at,
    place_of,
    sample_centre,
)
from mgcc_ref.story.world.scene import Box

ANCHOR = (0.4, 0.4, 0.6, 0.6)


def _around(centre: tuple[float, float], width: float = 0.2, height: float = 0.2) -> Box:
    x, y = centre
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _mirrored(box: Box) -> Box:
    return 1 - box[2], box[1], 1 - box[0], box[3]


def test_regions_tile_the_picture() -> None:
    assert sum((r[2] - r[0]) * (r[3] - r[1]) for r in REGIONS.values()) == pytest.approx(1)
    for place, region in REGIONS.items():
        assert place_of(region) is place


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("side", [0.22, 0.47])
def test_sampled_places_are_right(place: str, side: float) -> None:
    fact = PlaceFact(place)
    rng = np.random.default_rng(0)
    for _ in range(50):
        box = _around(sample_centre(fact, (side, side), rng), side, side)
        assert is_at(box, fact, tolerance=1e-9)
        assert min(box) >= -1e-9
        assert max(box) <= 1 + 1e-9
        others = [p for p in PLACES if p is not place]
        assert not any(is_at(box, PlaceFact(other), tolerance=0) for other in others)


@pytest.mark.parametrize("relation", list(INVERSE))
def test_sampled_relations_are_right(relation: Relation) -> None:
    fact = RelationFact(relation, (ANCHOR,))
    rng = np.random.default_rng(0)
    for _ in range(50):
        box = _around(sample_centre(fact, (0.2, 0.2), rng))
        assert is_at(box, fact, tolerance=1e-9)
        assert is_at(ANCHOR, RelationFact(INVERSE[relation], (box,)), tolerance=1e-9)
        if relation is not Relation.NEXT_TO:
            opposite = {Relation.UNDER: Relation.ABOVE}.get(relation, INVERSE[relation])
            assert not is_at(box, RelationFact(opposite, (ANCHOR,)))


def test_between() -> None:
    fact = RelationFact(Relation.BETWEEN, ((0.0, 0.4, 0.2, 0.6), (0.8, 0.4, 1.0, 0.6)))
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert is_at(_around(sample_centre(fact, (0.2, 0.2), rng)), fact, tolerance=1e-9)
    assert not is_at(_around((0.5, 0.9)), fact)
    assert not is_at(_around((0.1, 0.5)), fact)


def test_far_or_overlapping_is_not_beside() -> None:
    left = RelationFact(Relation.LEFT_OF, (ANCHOR,))
    assert is_at(_around((0.28, 0.5)), left)
    assert not is_at(_around((0.45, 0.5)), left)
    assert not is_at(_around((0.28, 0.9)), left)
    assert not is_at((0.0, 0.4, 0.1, 0.6), left)


def test_mirrored_scenes_are_rejected() -> None:
    """Left and right exchanged: facts that name a side must fail, those that don't must hold."""
    checked = 0
    for seed in range(100):
        story = make_story(seed, Split.VALIDATION)
        for fact in story.facts:
            box = _mirrored(story.target.objects[fact.index].box)
            if isinstance(fact.fact, PlaceFact):
                sided = "left" in fact.fact.place or "right" in fact.fact.place
                assert is_at(box, fact.fact) != sided
            else:
                mirrored = RelationFact(fact.fact.relation, tuple(_mirrored(b) for b in fact.fact.anchors))
                sided = fact.fact.relation in (Relation.LEFT_OF, Relation.RIGHT_OF)
                assert is_at(box, mirrored) != sided
            checked += sided
    assert checked > 100


def test_wrong_number_of_anchors() -> None:
    with pytest.raises(ValueError, match="'between' came with 1 anchor boxes, expected 2"):
        RelationFact(Relation.BETWEEN, (ANCHOR,))
