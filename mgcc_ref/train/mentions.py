"""Where a request mentions each object: the pointer targets of `LayoutHead`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mgcc_ref.model import MgccModel
from mgcc_ref.story.phrases import NOUNS, plural
from mgcc_ref.tokens import encode_template, encode_user_text
from mgcc_ref.train.requests import Request


def _pattern(nouns: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the nouns, singular or plural, the longest first."""
    forms = sorted([*nouns, *(plural(noun) for noun in nouns)], key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(re.escape(form) for form in forms) + r")\b", re.IGNORECASE)


_PATTERNS = {label: _pattern(nouns) for label, nouns in NOUNS.items()}


def mention_positions(model: MgccModel, request: Request, labels: Iterable[str]) -> dict[str, list[int]]:
    """Context positions of the last mention of each label: its word's tokens, or an image's visual tokens.

    A label that only an image shows points at the image; the quadrant's token where the object stands.
    """
    template, tokenizer = model.template, model.tokenizer
    wanted, found = set(labels), dict[str, list[int]]()
    position = len(encode_template(tokenizer, template.opening)) + len(encode_template(tokenizer, template.user_open))
    scenes = iter(request.image_scenes)
    for i, part in enumerate(request.parts):
        if i:
            position += len(encode_template(tokenizer, template.separator))
        if isinstance(part, str):
            encoding = tokenizer.encode(part, add_special_tokens=False)
            for label in wanted:
                for match in _PATTERNS[label].finditer(part):
                    covered = [t for t, (a, b) in enumerate(encoding.offsets) if a < match.end() and b > match.start()]
                    found[label] = [position + t for t in covered]
            position += len(encode_user_text(tokenizer, part))
        else:
            position += len(encode_template(tokenizer, template.image_open))
            for item in next(scenes).objects:
                if item.label in wanted and item.label not in found:
                    x, y = item.centre
                    found[item.label] = [position + 2 * int(y >= 0.5) + int(x >= 0.5)]
            position += model.profile.visual_tokens + len(encode_template(tokenizer, template.image_close))
    return found
