"""How alike two pictures are: cosine of CLIP's image features, and LPIPS. Weights come from local files alone."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mgcc_ref.networks.clip import build_clip
from mgcc_ref.published.clip import PREPROCESSOR, clip_config, load_clip
from mgcc_ref.published.pickles import read_pickle
from mgcc_ref.published.tensors import TRANSFORMERS, require_fit, tensor_files
from mgcc_ref.weights import WeightsError

LPIPS_PX = 256
#: SHA-256 of `weights/v0.1/alex.pth` in the package lpips 0.1.4.
HEADS_SHA256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
#: torchvision names its files by the first digits of their SHA-256: alexnet-owt-7be5be79.pth.
_NAMED_HASH = re.compile(r".*-([0-9a-f]{8,64})\.pth")


class Likeness(Protocol):
    @property
    def identity(self) -> str:
        """All that the value depends on beside the pictures."""

    @property
    def told(self) -> dict[str, Any]:
        """The weights that were used, for the result."""

    def __call__(self, drawn: Image.Image, truth: Image.Image) -> float: ...


class ClipSimilarity:
    """Cosine of two pictures' projected features, under the CLIP of a folder in `transformers`' layout."""

    def __init__(self, folder: Path) -> None:
        """WeightsError if the folder holds no whole CLIP that can be built here."""
        from transformers import CLIPImageProcessorPil

        config = clip_config(folder)
        model = build_clip(config)
        load_clip(model, config, folder)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)
        if (folder / PREPROCESSOR).is_file():
            self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        else:  # OpenAI's mean and deviation
            side = {"height": config.image_px, "width": config.image_px}
            self._processor = CLIPImageProcessorPil(size={"shortest_edge": config.image_px}, crop_size=side)
        crop = self._processor.crop_size
        if (crop["height"], crop["width"]) != (config.image_px, config.image_px):
            raise WeightsError(
                f"{folder / PREPROCESSOR} cuts pictures to {crop['height']}x{crop['width']}, expected "
                f"{config.image_px}x{config.image_px} as the vision tower has; copy the file that goes with the weights"
            )
        digest = hashlib.sha256()
        for file in tensor_files(folder, TRANSFORMERS, folder):
            digest.update(file_sha256(file).encode())
        self._sha256, self._px = digest.hexdigest(), config.image_px
        self.vit_l_14 = (config.vision_hidden, config.vision_layers, config.patch_px, config.image_px) == (
            1024, 24, 14, 224,
        )  # fmt: skip
        self.identity = f"clip {self._sha256} {self._processor.to_json_string()}"

    @property
    def told(self) -> dict[str, Any]:
        return {"sha256": self._sha256, "image_px": self._px, "vit_l_14": self.vit_l_14}

    def __call__(self, drawn: Image.Image, truth: Image.Image) -> float:
        """In [-1, 1]."""
        with torch.no_grad():
            one, other = (self._features(image) for image in (drawn, truth))
        return float(torch.nn.functional.cosine_similarity(one, other))

    def _features(self, image: Image.Image) -> Tensor:
        pixels = self._processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
        pooled = self._model.vision_model(pixel_values=pixels.to(self._device)).pooler_output
        found: Tensor = self._model.visual_projection(pooled)
        return found


class Lpips:
    """LPIPS 0.1 over AlexNet (Zhang et al. 2018, arXiv 1801.03924), at 256x256 with antialiasing.

    The package `lpips` needs torchvision. Next to a torchvision of another build than PyTorch, no CLIP of
    `transformers` can be imported. So the formula is written here, and only the package's file is read.
    """

    def __init__(self, alexnet: Path, heads: Path | None = None) -> None:
        """`alexnet`: torchvision's file; `heads`: `weights/v0.1/alex.pth` of the package `lpips`, None where it is
        installed. WeightsError for a damaged file, or one of other weights.
        """
        self._sha256 = {"alexnet": checked_sha256(alexnet)}
        heads = heads or installed_heads()
        self._sha256["heads"] = file_sha256(heads)
        given = {name: value for name, value in _tensors(alexnet).items() if not name.startswith("classifier.")}
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network = _AlexNet()
        _fill(self._network, given, alexnet, "AlexNet of torchvision")
        self._network.eval().to(self._device)
        found = _tensors(heads)
        wanted = {f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate(_WIDTHS)}
        require_fit(heads, {n: tuple(v.shape) for n, v in found.items()}, wanted, "heads of LPIPS over AlexNet")
        self._heads = [found[name].float().to(self._device) for name in wanted]
        self.identity = f"lpips {self._sha256['alexnet']} {self._sha256['heads']}"

    @property
    def told(self) -> dict[str, Any]:
        return {**self._sha256, "published_heads": self._sha256["heads"] == HEADS_SHA256}

    def __call__(self, drawn: Image.Image, truth: Image.Image) -> float:
        """0 for the same picture; larger values are less alike."""
        with torch.no_grad():
            one, other = (self._network(_lpips_pixels(image).to(self._device)) for image in (drawn, truth))
            parts = [
                torch.nn.functional.conv2d((a - b) ** 2, head).mean()
                for a, b, head in zip(one, other, self._heads, strict=True)
            ]
        return float(torch.stack(parts).sum())


_WIDTHS = (64, 192, 384, 256, 256)  # of AlexNet's five convolutions
_TAPS = (1, 4, 7, 9, 11)  # the ReLUs, whose outputs are compared
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for [-1, 1]


class _AlexNet(nn.Module):
    """torchvision's AlexNet up to its last convolution: (1, 3, H, W) in [-1, 1] -> five maps of unit vectors."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, e = _WIDTHS
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU(),
            nn.Conv2d(d, e, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        for name, values in (("shift", _SHIFT), ("scale", _SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x, found = (pixels - self.shift) / self.scale, []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in _TAPS:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def installed_heads() -> Path:
    """The file of the package lpips, which is not imported. WeightsError if it is not installed."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or spec.origin is None:
        raise WeightsError(
            "the heads of LPIPS are missing: give --lpips-heads the file weights/v0.1/alex.pth of the package lpips, "
            "or install that with `pip install --no-deps lpips==0.1.4`"
        )
    return Path(spec.origin).parent / "weights" / "v0.1" / "alex.pth"


def _lpips_pixels(image: Image.Image) -> Tensor:
    """(1, 3, 256, 256) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32)).permute(2, 0, 1).unsqueeze(0)
    size = (LPIPS_PX, LPIPS_PX)
    return torch.nn.functional.interpolate(pixels / 127.5 - 1, size, mode="bilinear", antialias=True)


def _tensors(path: Path) -> dict[str, Tensor]:
    found = read_pickle(path)
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{path} holds no tensors by their names, expected a state dict; download it again")
    return dict(found)


def _fill(module: nn.Module, state: dict[str, Tensor], path: Path, what: str) -> None:
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    require_fit(path, {name: tuple(value.shape) for name, value in state.items()}, expected, what)
    module.load_state_dict({name: value.float() for name, value in state.items()})


def checked_sha256(path: Path) -> str:
    """The file's SHA-256. WeightsError if its name, by torchvision's custom, states another."""
    found = file_sha256(path)
    named = _NAMED_HASH.fullmatch(path.name)
    if named and not found.startswith(named.group(1)):
        raise WeightsError(
            f"{path} has the SHA-256 {found[:16]}..., expected {named.group(1)}... as its name says; download it again"
        )
    return found


def file_sha256(path: Path) -> str:
    """The file's SHA-256. WeightsError if there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read ({error.strerror}); give the downloaded file") from None
