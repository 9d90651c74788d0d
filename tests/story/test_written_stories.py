"""Written stories: what they say is drawn, their variants mean the same, and their targets leave open what they do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mgcc_ref.story.free_english import WantedPlace, free_items
from mgcc_ref.story.telling.apart import LONGEST_SHARED
from mgcc_ref.story.telling.words import every_mention_in
from mgcc_ref.story.world.scene import MAX_OBJECTS, Background, fits
from mgcc_ref.story.world.sprites import LABELS
from mgcc_ref.story.written.stories import ShownThing, WrittenScene, WrittenStory, WrittenText, written_stories
from mgcc_ref.story.written.variants import any_variant, mirrored, recast
from mgcc_ref.train.requests import Conversation
from mgcc_ref.train.written_conversations import Target, apart, conversation_of, written_conversation

_COLUMNS, _ROWS = {"left", "centre", "right", "any"}, {"top", "middle", "bottom", "any"}


def told(*texts: tuple[str, tuple[tuple[str, str, str], ...]]) -> WrittenStory:
    return WrittenStory(0, tuple(WrittenText(text, tuple(WantedPlace(*w) for w in wanted)) for text, wanted in texts))


def test_every_story_is_one_of_this_world() -> None:
    every = written_stories()
    assert len(every) > 900
    assert len({story.author for story in every}) >= 9
    for story in every:
        last = story.parts[-1]
        assert isinstance(last, WrittenText) and last.wanted, story.texts
        for part in story.parts:
            if isinstance(part, WrittenScene):
                assert {thing.label for thing in part.things} <= set(LABELS)
                continue
            wanted = part.wanted or ()
            assert len(wanted) <= MAX_OBJECTS
            assert max(Counter(w.label for w in wanted).values(), default=0) <= 2
            assert {w.label for w in wanted} <= set(LABELS)
            assert {w.column for w in wanted} <= _COLUMNS and {w.row for w in wanted} <= _ROWS


def test_they_are_no_validation_texts() -> None:
    free = {text for item in free_items() for text in item.texts if len(text.split()) > LONGEST_SHARED}
    kept = apart()
    assert 0.9 * len(written_stories()) < len(kept) < len(written_stories())
    assert not free & {text for story in kept for text in story.texts}


def test_the_mirror_exchanges_sides_in_words_places_and_pictures() -> None:
    shown = WrittenScene(Background.BEACH, (ShownThing("fox", 0.2, 0.8),))
    text = WrittenText("A cat lies on the right; Left of it is the fox.", (WantedPlace("cat", "right", "any"),))
    found = mirrored(WrittenStory(0, (shown, text)))
    assert found is not None
    assert found.texts == ("A cat lies on the left; Right of it is the fox.",)
    assert found.parts[0] == replace(shown, things=(ShownThing("fox", 0.8, 0.8),))
    assert found.parts[1] == WrittenText(found.texts[0], (WantedPlace("cat", "left", "any"),))


@pytest.mark.parametrize(
    "text",
    [
        "The cat left the beach.",
        "It is right above the house.",
        "All right, a cat.",
        "See what is left of the cat.",
        "A cat, to the east.",
    ],
)
def test_no_mirror_where_left_or_right_may_be_no_side(text: str) -> None:
    assert mirrored(told((text, (("cat", "any", "any"),)))) is None


def test_the_mirror_of_a_mirror_is_the_story() -> None:
    pairs = [(story, mirrored(story)) for story in written_stories()]
    both = [(story, other) for story, other in pairs if other is not None]
    assert len(both) > 0.6 * len(pairs)
    for story, other in both:
        again = mirrored(other)
        assert again is not None and again.texts == story.texts
        assert [p for p in again.parts if isinstance(p, WrittenText)] == [
            p for p in story.parts if isinstance(p, WrittenText)
        ]


def test_roles_are_recast_in_words_and_states_alike() -> None:
    story = told(("A kitten naps by the oak. The cat purrs.", (("cat", "any", "any"), ("tree", "any", "any"))))
    for seed in range(20):
        found = recast(story, np.random.default_rng(seed))
        part = found.parts[0]
        assert isinstance(part, WrittenText) and part.wanted is not None
        assert {m.label for m in every_mention_in(part.text)} == {w.label for w in part.wanted}
        assert not {w.label for w in part.wanted} & {"cat", "tree"}


def test_a_thing_that_no_known_noun_names_keeps_its_role() -> None:
    story = told(("Tiddles naps here.", (("cat", "any", "any"),)))
    assert recast(story, np.random.default_rng(1)) == story


def _regions(conversation: Conversation) -> None:
    for point in conversation.points:
        items = point.target.objects
        assert len(items) == len(point.regions)
        assert all(fits(item, items[:i]) for i, item in enumerate(items))
        for item, region in zip(items, point.regions, strict=True):
            if region is not None:
                x, y = item.centre
                assert region[0] - 0.12 <= x <= region[2] + 0.12 and region[1] - 0.12 <= y <= region[3] + 0.12


def test_targets_are_where_the_story_says() -> None:
    for index in range(0, 900, 9):
        found = written_conversation(5, index)
        assert found.points
        _regions(found)
    assert written_conversation(5, 3).parts[0] == written_conversation(5, 3).parts[0]


def test_what_a_picture_showed_stays_there_and_what_left_is_gone() -> None:
    shown = WrittenScene(Background.BEACH, (ShownThing("fox", 0.2, 0.8), ShownThing("car", 0.8, 0.5)))
    stays = WrittenText("A cake comes.", (WantedPlace("fox", "left", "bottom"), WantedPlace("cake", "any", "any")))
    moves = WrittenText("My friend crosses over.", (WantedPlace("fox", "right", "bottom"),))
    found = conversation_of(WrittenStory(0, (shown, stays, moves)), np.random.default_rng(0))
    assert found is not None
    assert isinstance(found.parts[0], Image.Image)
    first, second = found.points
    scene = found.scenes[0]
    assert scene is not None
    assert first.target.objects[0] == scene.objects[0] and first.regions[0] is None
    assert [o.label for o in first.target.objects] == ["fox", "cake"] and first.regions[1] == (0.0, 0.0, 1.0, 1.0)
    assert [o.label for o in second.target.objects] == ["fox"]
    assert second.regions[0] is not None and second.regions[0][0] > 0.6


def test_the_background_is_the_story_s_where_it_is_asked_for() -> None:
    kept = WrittenText("A cat sits there.", (WantedPlace("cat", "left", "any"),))
    told = WrittenText("The waves roll in.", (WantedPlace("cat", "left", "any"),), Background.BEACH)
    story = WrittenStory(0, (kept, told))
    either = [conversation_of(story, np.random.default_rng(0), target) for target in Target]
    points = [[(p.parts, p.target.background) for p in found.points] for found in either if found is not None]
    assert points == [[(1, Background.MEADOW), (2, Background.BEACH)], [(2, Background.BEACH)]]
    mirrored_parts = mirrored(story).parts
    assert [p.background for p in mirrored_parts if isinstance(p, WrittenText)] == [None, Background.BEACH]
    backgrounds = [written_conversation(5, i, Target.SCENE).points[-1].target.background for i in range(60)]
    assert set(backgrounds) == set(Background)
    assert len(apart(Target.SCENE)) > 0.8 * len(apart())


def test_variants_are_many_and_the_same_for_the_same_seed() -> None:
    story = written_stories()[0]
    texts = [any_variant(story, np.random.default_rng(seed)).texts for seed in range(40)]
    assert len(set(texts)) > 8
    assert texts == [any_variant(story, np.random.default_rng(seed)).texts for seed in range(40)]


@pytest.mark.slow
def test_every_story_fits_into_pictures_in_some_variant() -> None:
    """`written_conversation` tries until one does, so a story that never fits would hang a training."""
    for story in apart():
        rng = np.random.default_rng(story.author)
        assert any(conversation_of(any_variant(story, rng), rng) is not None for _ in range(30)), story.texts
