"""Whether a turn of a dialogue asks for a picture."""

from __future__ import annotations

import numpy as np

from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.decoding import wants_picture
from mgcc_runtime.names import DRAW_DECISION
from mgcc_runtime.prompt import Prompt
from mgcc_runtime.text.context import Context


class DrawDecision:
    """A bundle's decision: a logistic regression on the turn's features, or without one the model's `[IMG1]`.

    The file holds 2 D_f weights and a bias: of the mean of f_mm over the turn, and of f_mm at the last position.
    """

    def __init__(self, bundle: Bundle) -> None:
        features = bundle.manifest.dimensions.features
        self._image_ids = bundle.manifest.tokens.image
        self._row = None
        if bundle.has(DRAW_DECISION):
            self._row = np.array(bundle.array(DRAW_DECISION, (2 * features + 1,)), np.float64)

    def asks(self, context: Context, turn: Prompt, closing: int) -> bool:
        """Whether `turn` asks for a picture; `context` ends with it and `closing` positions of the template.

        A turn of images alone asks for none, where the bundle has a regression.
        """
        if self._row is None:
            return wants_picture(context.end.logits, self._image_ids)
        return any(isinstance(part, str) for part in turn.parts) and self.logit(context, turn, closing) > 0

    def logit(self, context: Context, turn: Prompt, closing: int) -> float:
        """The regression's logit; the visual tokens of a turn's images are left out of its mean."""
        assert self._row is not None, "the bundle has no regression"
        end = context.length - closing
        told = context.features[0, end - turn.length : end][turn.ids >= 0]
        summary = np.concatenate([told.mean(axis=0, dtype=np.float64), context.features[0, -1]])
        return float(summary @ self._row[:-1] + self._row[-1])
