"""OpenAI's objects, made of what was drawn."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mgcc_kiosk.drawing.encoding import Rendering
from mgcc_kiosk.drawing.events import Drawn, DrawnPicture
from mgcc_kiosk.kiosk import Kiosk
from mgcc_runtime.prompt import Part


def now_s() -> int:
    return int(time.time())


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Tokens:
    """What a request cost, in tokens of the language model."""

    text_in: int
    image_in: int
    text_out: int = 0
    image_out: int = 0

    @classmethod
    def read(cls, kiosk: Kiosk, parts: Sequence[Part]) -> Tokens:
        """Of a request's parts, before anything is drawn."""
        prompts = kiosk.pipeline.prompts
        texts = [part for part in parts if isinstance(part, str)]
        text_in = prompts.draft(texts).length if texts else 0
        return cls(text_in, prompts.draft(parts).length - text_in)

    def drawn(self, kiosk: Kiosk, drawn: Drawn) -> Tokens:
        """With what was given back."""
        image_out = len(drawn.pictures) * kiosk.pipeline.bundle.manifest.dimensions.image_tokens
        return Tokens(self.text_in, self.image_in, drawn.text_tokens, image_out)

    @property
    def input(self) -> int:
        return self.text_in + self.image_in

    @property
    def output(self) -> int:
        return self.text_out + self.image_out

    def of_images(self) -> dict[str, Any]:
        """As the images endpoints have it."""
        return {
            "input_tokens": self.input, "output_tokens": self.output, "total_tokens": self.input + self.output,
            "input_tokens_details": {"text_tokens": self.text_in, "image_tokens": self.image_in},
            "output_tokens_details": {"text_tokens": self.text_out, "image_tokens": self.image_out},
        }  # fmt: skip

    def of_chat(self) -> dict[str, Any]:
        """As chat completions have it."""
        return {
            "prompt_tokens": self.input, "completion_tokens": self.output, "total_tokens": self.input + self.output,
        }  # fmt: skip

    def of_response(self) -> dict[str, Any]:
        """As responses have it."""
        return {
            "input_tokens": self.input, "output_tokens": self.output, "total_tokens": self.input + self.output,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip


def own_fields(drawn: Drawn, picture: DrawnPicture) -> dict[str, Any]:
    """What no field of OpenAI's says; clients keep it as it is."""
    notes = {"notes": [note.to_json() for note in drawn.notes]} if drawn.notes else {}
    return {"seed": picture.seed, "boxes": [box.to_json() for box in picture.boxes], **notes}


def size_text(kiosk: Kiosk, rendering: Rendering) -> str:
    side = kiosk.pipeline.bundle.manifest.dimensions.image_px
    width, height = rendering.size or (side, side)
    return f"{width}x{height}"
