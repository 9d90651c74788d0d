"""CLIP similarity and LPIPS against computations of their own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import CLIPImageProcessorPil, CLIPModel

from mgcc_benchmarks.paper.likeness import ClipSimilarity, Lpips, file_sha256
from mgcc_ref.weights import WeightsError
from tests.benchmarks.paper.datasets import noise_picture
from tests.benchmarks.paper.networks import clip_similarity, lpips_by_hand, write_alexnet, write_heads
from tests.published import MEAN, STD, publish_clip

FIRST, SECOND = noise_picture(1), noise_picture(2, (64, 48))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    publish_clip(folder)
    return folder


def test_clip_is_transformers_own(clip_folder: Path) -> None:
    ours = ClipSimilarity(clip_folder)
    assert ours(FIRST, FIRST) == pytest.approx(1.0, abs=1e-6)
    assert ours(FIRST, SECOND) == pytest.approx(clip_similarity(clip_folder, FIRST, SECOND), abs=1e-6)
    assert ours(FIRST, SECOND) < 0.99
    assert ours.told["vit_l_14"] is False and ours.told["image_px"] == 56


def test_clip_of_a_folder_without_preprocessor_has_openais(clip_folder: Path, tmp_path: Path) -> None:
    for file in clip_folder.iterdir():
        if file.name != "preprocessor_config.json":
            (tmp_path / file.name).symlink_to(file)
    model = CLIPModel.from_pretrained(clip_folder)
    usual = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    with torch.no_grad():
        features = [
            model.visual_projection(model.vision_model(**usual(images=i, return_tensors="pt")).pooler_output)[0]
            for i in (FIRST, SECOND)
        ]
    wanted = float(torch.dot(*features) / features[0].norm() / features[1].norm())
    assert ClipSimilarity(tmp_path)(FIRST, SECOND) == pytest.approx(wanted, abs=1e-6)


def test_a_clip_without_a_tensor_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    """`transformers` would take random numbers for it."""
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").symlink_to(clip_folder / "config.json")
    state = load_file(clip_folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lacks visual_projection\.weight"):
        ClipSimilarity(tmp_path)


def test_a_clip_with_another_ones_preprocessor_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(clip_folder / name)
    CLIPImageProcessorPil(image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="cuts pictures to 224x224, expected 56x56 as the vision tower has"):
        ClipSimilarity(tmp_path)


def test_lpips_is_its_formula(tmp_path: Path) -> None:
    """At random weights, by AlexNet's five convolutions written out."""
    alexnet, heads = write_alexnet(tmp_path / "alexnet.pth"), write_heads(tmp_path / "heads.pth")
    ours = Lpips(alexnet, heads)
    assert ours(FIRST, FIRST) == 0
    wanted = lpips_by_hand(torch.load(alexnet), torch.load(heads), FIRST, SECOND)
    assert wanted > 1e-3
    assert ours(FIRST, SECOND) == pytest.approx(wanted, rel=1e-4)
    assert ours.told["published_heads"] is False


def test_heads_that_are_nowhere_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an installed package are found without importing it."""
    with pytest.raises(WeightsError, match=r"--lpips-heads the file weights/v0\.1/alex\.pth of the package lpips"):
        Lpips(write_alexnet(tmp_path / "alexnet.pth"))
    (package := tmp_path / "site" / "lpips" / "weights" / "v0.1").mkdir(parents=True)
    (tmp_path / "site" / "lpips" / "__init__.py").write_text("raise ImportError('it needs torchvision')")
    write_heads(package / "alex.pth")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert Lpips(tmp_path / "alexnet.pth")(FIRST, SECOND) > 0


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    alexnet = write_alexnet(tmp_path / "alexnet.pth")
    heads, digest = write_heads(tmp_path / "heads.pth"), file_sha256(alexnet)
    assert digest == hashlib.sha256(alexnet.read_bytes()).hexdigest()
    named = alexnet.rename(tmp_path / f"alexnet-{digest[:8]}.pth")
    Lpips(named, heads)
    damaged = tmp_path / "alexnet-owt-7be5be79.pth"
    damaged.write_bytes(named.read_bytes())
    with pytest.raises(WeightsError, match=r"expected 7be5be79\.\.\. as its name says; download it again"):
        Lpips(damaged, heads)
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"does not fit the AlexNet of torchvision: it lacks features\.0\.bias"):
        Lpips(tmp_path / "part.pth", heads)
    (tmp_path / "text.pth").write_text("no weights")
    for name, said in (("text.pth", "cannot be read as pickled tensors"), ("none", "No such file")):
        with pytest.raises(WeightsError, match=said):
            Lpips(tmp_path / name, heads)


def test_the_formula_by_hand_is_not_blind(tmp_path: Path) -> None:
    """Without the scaling of the colours it gives something else."""
    state, heads = torch.load(write_alexnet(tmp_path / "a.pth")), torch.load(write_heads(tmp_path / "h.pth"))
    right = lpips_by_hand(state, heads, FIRST, SECOND)
    assert abs(lpips_by_hand(state, heads, FIRST, SECOND, shift=(0.0, 0.0, 0.0)) - right) > 1e-3 * right
