"""The reference with the true caption in place of the one that it imagines."""

from __future__ import annotations

import torch
from torch import Tensor

from mgcc_ref.pipeline import Context, ReferencePipeline


class CaptionedPipeline(ReferencePipeline):
    """Conditions each picture on `caption`, as the text tower reads it; `[IMG]` tokens and CMRM are not used."""

    caption = ""

    @torch.no_grad()
    def refine(self, context: Context) -> Tensor:
        return self.model.encode_captions([self.caption])
