"""The positions at which a request mentions each object: the pointer targets of `LayoutHead`."""

from __future__ import annotations

from collections.abc import Iterable

from mgcc_ref.model import MgccModel
from mgcc_ref.story.telling.words import every_mention_in
from mgcc_ref.tokens import encode_template, encode_user_text
from mgcc_ref.train.requests import Request


def mention_positions(model: MgccModel, request: Request, labels: Iterable[str]) -> dict[str, list[int]]:
    """Context positions of the last mention of each label: its word's tokens, or an image's visual tokens.

    The mention of a label that only images show is the visual token of its quadrant in the first of them.
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
            for mention in every_mention_in(part):
                if mention.label in wanted:
                    covered = [t for t, (a, b) in enumerate(encoding.offsets) if a < mention.end and b > mention.start]
                    found[mention.label] = [position + t for t in covered]
            position += len(encode_user_text(tokenizer, part))
        else:
            position += len(encode_template(tokenizer, template.image_open))
            for item in next(scenes).objects:
                if item.label in wanted and item.label not in found:
                    x, y = item.centre
                    found[item.label] = [position + 2 * int(y >= 0.5) + int(x >= 0.5)]
            position += model.profile.visual_tokens + len(encode_template(tokenizer, template.image_close))
    return found
