"""GILL's checkpoint: a file with its names, layout and pickling, at toy width, becomes weights that the model loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mgcc_ref.config import get_profile
from mgcc_ref.model import Alignment, load_model
from mgcc_ref.weights import load_module
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from tools.convert_gill import converted, main, read_checkpoint

PROFILE = get_profile("gill-tiny")
HIDDEN, CLIP, WIDTH = PROFILE.llm.hidden, PROFILE.clip.vision_hidden, PROFILE.clip.text_hidden
MAPPER = PROFILE.refiner


def gills_state() -> dict[str, Tensor]:
    """Names as GILL's code gives them (`TextFcLayer` in mode gill_mapper, several GPUs), with its retrieval parts."""
    torch.manual_seed(1)
    layer = nn.Module()
    layer.fc = nn.Linear(HIDDEN, MAPPER.mapper_hidden)
    layer.tfm = nn.Transformer(
        d_model=MAPPER.mapper_hidden, nhead=MAPPER.mapper_heads, num_encoder_layers=MAPPER.mapper_layers,
        num_decoder_layers=MAPPER.mapper_layers, dim_feedforward=MAPPER.mapper_feed_forward, norm_first=True,
        batch_first=True,
    )  # fmt: skip
    layer.model = nn.Linear(MAPPER.mapper_hidden, WIDTH)
    layer.query_embs = nn.Parameter(torch.randn(1, PROFILE.clip.text_positions, MAPPER.mapper_hidden))
    names = {f"model.gen_text_hidden_fcs.0.{name}": value for name, value in layer.state_dict().items()}
    names["model.visual_embeddings.weight"] = torch.randn(PROFILE.visual_tokens * HIDDEN, CLIP)
    names["model.visual_embeddings.bias"] = torch.randn(PROFILE.visual_tokens * HIDDEN)
    names["model.input_embeddings.weight"] = torch.randn(PROFILE.image_tokens, HIDDEN)
    names["model.ret_text_hidden_fcs.0.model.weight"] = torch.randn(256, HIDDEN)
    names["model.visual_fc.weight"] = torch.randn(256, CLIP)
    names["model.logit_scale"] = torch.tensor(2.6)
    return {f"module.{name}": value.bfloat16() for name, value in names.items()}


def test_the_file_becomes_weights_that_load_strictly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = gills_state()
    torch.save({"state_dict": state}, tmp_path / "pretrained_ckpt.pth.tar")
    arguments = ["--checkpoint", str(tmp_path / "pretrained_ckpt.pth.tar"), "--profile", "gill-tiny", "--out"]
    assert main([*arguments, str(tmp_path / "weights")]) == EXIT_DONE
    assert "lacks a grounder" in capsys.readouterr().out
    model = load_model(PROFILE, "random")
    load_module(Alignment(model), tmp_path / "weights" / "alignment.safetensors")
    rows = state["module.model.input_embeddings.weight"].float()
    torch.testing.assert_close(model.llm.image_tokens.embeddings, rows, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.llm.image_tokens.head.weight, rows, rtol=1e-3, atol=1e-4)  # OPT ties them
    wanted = state["module.model.gen_text_hidden_fcs.0.tfm.decoder.layers.0.linear1.weight"].float()
    torch.testing.assert_close(model.refiner.mapper.tfm.decoder.layers[0].linear1.weight, wanted, rtol=1e-3, atol=1e-4)


def test_of_embeddings_that_were_not_pruned_the_last_rows_count() -> None:
    state = gills_state()
    name = "module.model.input_embeddings.weight"
    whole = state | {name: torch.cat([torch.randn(50, HIDDEN).bfloat16(), state[name]])}
    found, pruned = converted(whole, PROFILE), converted(state, PROFILE)
    assert found.keys() == pruned.keys() and all(torch.equal(found[k], pruned[k]) for k in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module.model.visual_embeddings.bias": None}, r"the checkpoint lacks visual_projection\.bias; give GILL's"),
        ({"module.model.lora.weight": torch.zeros(2)}, r"the checkpoint holds model\.lora\.weight, which GILL's does"),
        (
            {"module.model.gen_text_hidden_fcs.0.model.bias": torch.zeros(768)},
            r"refiner\.mapper\.model\.bias of the checkpoint is \(768,\), profile gill-tiny has \(64,\); choose",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor | None], message: str) -> None:
    state = {name: value for name, value in (gills_state() | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        converted(state, PROFILE)


def test_a_pickle_that_would_run_code_or_is_cut_off_is_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("this code ran",)

    file = tmp_path / "pretrained_ckpt.pth.tar"
    torch.save({"state_dict": {"a": Runs()}}, file)
    with pytest.raises(InputError, match=r"would run builtins\.print when it is read, expected tensors and settings"):
        read_checkpoint(file)
    torch.save({"state_dict": gills_state()}, file)
    file.write_bytes(file.read_bytes()[:2000])
    assert main(["--checkpoint", str(file), "--out", str(tmp_path / "w")]) == EXIT_BAD_INPUT
    torch.save({"1.weight": torch.zeros(2, HIDDEN), "1.bias": torch.zeros(2)}, file)
    with pytest.raises(InputError, match="is GILL's decision model, which chooses between drawing"):
        read_checkpoint(file)
    torch.save([1, 2], file)
    with pytest.raises(InputError, match="holds no"):
        read_checkpoint(file)


def test_the_published_file_has_as_many_values_as_ours_reads() -> None:
    """50,096,385 parameters are published: the mapper, projection and [IMG] rows that we read, and retrieval's rest."""
    from mgcc_ref.parts import load_parts

    with torch.device("meta"):
        model = load_parts(get_profile("gill"), "random").model
    state = Alignment(model).state_dict()
    tied = sum(v.numel() for name, v in state.items() if name.startswith("image_tokens.head"))
    ours = sum(v.numel() for v in state.values()) - tied
    retrieval = (4096 * 256 + 256) + (1024 * 256 + 256) + 1
    assert ours + retrieval == 50_096_385
