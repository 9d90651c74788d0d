"""Conversations for `align`, in many wordings of the background.

The conditioning's first word is the background. An alignment that had read templates alone drew the right one after
0.998 of dialogues in validation phrasings, and after 0.892 of those in test phrasings.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from mgcc_ref.story.wording.phrases import pick
from mgcc_ref.story.world.scene import Background, render
from mgcc_ref.story.written.settings import SettingKind, written_settings
from mgcc_ref.train.fresh_conversations import fresh_conversation
from mgcc_ref.train.requests import LAST_TURN_CHANCE, Conversation, Request
from mgcc_ref.train.written_conversations import Target, written_conversation

_WRITTEN_CHANCE = 0.3  # of a conversation from a written story
_SETTINGS = (0, 0, 1, 1, 2, 3)  # how many written sentences a conversation has
_NOTHING_CHANCE, _OPENING_CHANCE = 0.35, 0.35  # of such a sentence; the others are arrivals
_NAMED_AGAIN_CHANCE = 0.15  # that an opening or arrival names the background that is there already


def setting_request(seed: int, index: int) -> Request:
    """The request at a point of conversation `index` of the endless set `seed`; mostly at the last one."""
    rng = np.random.default_rng([seed, index, 4])
    if rng.random() < _WRITTEN_CHANCE:
        conversation = written_conversation(seed, int(rng.integers(2**31)), Target.SCENE)
    else:
        conversation = fresh_conversation(seed, index)
    for _ in range(pick(_SETTINGS, rng)):
        conversation = with_setting(conversation, rng)
    count = len(conversation.points)
    return conversation.request(count - 1 if rng.random() < LAST_TURN_CHANCE else int(rng.integers(count)))


def with_setting(conversation: Conversation, rng: np.random.Generator) -> Conversation:
    """The conversation with a written sentence at the end of a text after which a picture is asked for.

    The background that the sentence brings stays until the conversation itself changes it.
    """
    at = pick([i for i, point in enumerate(conversation.points) if _is_text(conversation, point.parts)], rng)
    point = conversation.points[at]
    here, named = point.target.background, pick(tuple(Background), rng)
    kind = SettingKind.ARRIVAL
    if rng.random() < _NOTHING_CHANCE:
        kind = SettingKind.NOTHING
    elif rng.random() < _OPENING_CHANCE:
        kind = SettingKind.OPENING
    if named is here and (kind is SettingKind.NOTHING or rng.random() >= _NAMED_AGAIN_CHANCE):
        named = pick([b for b in Background if b is not here], rng)
    text = pick(written_settings()[kind, named], rng)
    told = list(conversation.parts)
    told[point.parts - 1] = _joined(str(told[point.parts - 1]), text)
    longer = replace(conversation, parts=tuple(told))
    return longer if kind is SettingKind.NOTHING else _moved(longer, point.parts - 1, named)


def _is_text(conversation: Conversation, parts: int) -> bool:
    return isinstance(conversation.parts[parts - 1], str)


def _joined(text: str, setting: str) -> str:
    """The sentence behind the text, in its letters: lower case, or with a full stop between."""
    if text == text.lower():
        setting = setting.lower()
    return f"{text}{'' if text.rstrip()[-1] in '.?!' else '.'} {setting}"


def _moved(conversation: Conversation, start: int, now: Background) -> Conversation:
    """All that is shown and wanted from part `start` on, until the background changes there, in front of `now`."""
    was = next(p.target.background for p in conversation.points if p.parts - 1 == start)
    points = [(p.parts - 1, p.target.background) for p in conversation.points]
    shown = [(i, s.background) for i, s in enumerate(conversation.scenes) if s is not None]
    changes = [i for i, background in points + shown if i > start and background is not was]
    end = min(changes, default=len(conversation.parts))
    parts, scenes = list(conversation.parts), list(conversation.scenes)
    for i in range(start, end):
        if (scene := scenes[i]) is not None:
            scenes[i] = moved = replace(scene, background=now)
            parts[i] = Image.fromarray(render(moved))
    wanted = tuple(
        replace(p, target=replace(p.target, background=now)) if start <= p.parts - 1 < end else p
        for p in conversation.points
    )
    return Conversation(tuple(parts), tuple(scenes), wanted)
