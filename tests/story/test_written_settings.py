"""Sentences about the background that no template has, and the conversations that they lead elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mgcc_ref.story.telling.apart import keeps_apart
from mgcc_ref.story.wording.patterns import every_wording_of
from mgcc_ref.story.wording.phrases import Bank, Split, patterns
from mgcc_ref.story.world.scene import Background, Scene, place, render
from mgcc_ref.story.written.settings import SettingKind, written_settings
from mgcc_ref.train.requests import Conversation, DrawPoint
from mgcc_ref.train.setting_conversations import setting_request, with_setting

CAT = place("cat", (0.5, 0.5), 30)


def test_the_sentences_are_many_and_apart_from_the_scored_ones() -> None:
    every = written_settings()
    scored = {
        wording.strip().lower().rstrip(".")
        for split in (Split.VALIDATION, Split.TEST)
        for bank in patterns(split, Bank.SETTINGS).values()
        for wording in every_wording_of(bank)
    }
    for kind in SettingKind:
        for background in Background:
            texts = every[kind, background]
            assert len(texts) == len(set(texts)) > 60, (kind, background)
            assert all(map(keeps_apart, texts))
            assert scored.isdisjoint(text.strip().lower().rstrip(".") for text in texts)


def _scene(background: Background) -> Scene:
    return Scene(background, (CAT,))


def _conversation(backgrounds: tuple[Background, ...]) -> Conversation:
    """A text and a picture for each background, with a point after each text."""
    scenes = [_scene(b) for b in backgrounds]
    parts = tuple(part for number, s in enumerate(scenes) for part in (f"Text {number}.", Image.fromarray(render(s))))
    shown = tuple(part for s in scenes for part in (None, s))
    points = tuple(DrawPoint(2 * number + 1, s, ()) for number, s in enumerate(scenes))
    return Conversation(parts, shown, points)


@pytest.mark.parametrize("seed", range(40))
def test_a_sentence_moves_what_follows_until_the_conversation_moves_on(seed: int) -> None:
    told = (Background.MEADOW, Background.MEADOW, Background.SNOW, Background.MEADOW)
    before = _conversation(told)
    after = with_setting(before, np.random.default_rng(seed))
    (at,) = (i for i, (a, b) in enumerate(zip(before.parts, after.parts, strict=True)) if isinstance(a, str) and a != b)
    added = str(after.parts[at]).removeprefix(f"{before.parts[at]} ")
    ((kind, named),) = (key for key, texts in written_settings().items() if added in texts)
    turn, now = at // 2, [point.target.background for point in after.points]
    until = {0: 2, 1: 2, 2: 3, 3: 4}[turn]
    expected = list(told)
    if kind is not SettingKind.NOTHING:
        expected[turn:until] = [named] * (until - turn)
    else:
        assert named is not told[turn]
    assert now == expected
    for scene, part, background in zip(after.scenes[1::2], after.parts[1::2], expected, strict=True):
        assert scene == _scene(background) and isinstance(part, Image.Image)
        assert np.array_equal(np.asarray(part), render(_scene(background)))
    assert after == replace(before, parts=after.parts, scenes=after.scenes, points=after.points)


def test_a_request_is_the_same_each_time_and_no_other_s() -> None:
    one, again, other = setting_request(5, 3), setting_request(5, 3), setting_request(5, 4)
    assert [p for p in one.parts if isinstance(p, str)] == [p for p in again.parts if isinstance(p, str)]
    assert one.target == again.target and one.parts[0] != other.parts[0]
    requests = [setting_request(5, index) for index in range(60)]
    assert {r.target.background for r in requests} == set(Background)
    written = [text for texts in written_settings().values() for text in texts]
    led = sum(any(text in str(part) for text in written for part in r.parts) for r in requests)
    assert 20 < led < 60
