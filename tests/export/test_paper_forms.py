"""The paper profile's kinds of stages (OPT, GLIGEN gates, KL autoencoder, phrase encoder) export at tiny size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mgcc_export.stages import ExampleMaker, collect_stages, value_cases
from mgcc_export.to_onnx import export_stage
from mgcc_export.validate import validate_stage
from mgcc_ref.config import Grounding, VisualPooling, get_profile
from mgcc_ref.model import MgccModel, load_model


@pytest.fixture(scope="module")
def paper_like() -> MgccModel:
    tiny = get_profile("tiny")
    return load_model(
        dataclasses.replace(
            tiny,
            labels=(),
            llm=dataclasses.replace(tiny.llm, family="opt", kv_heads=tiny.llm.heads, feature_layers=(2,)),
            unet=dataclasses.replace(tiny.unet, grounding=Grounding.GLIGEN, prediction="epsilon"),
            vae=dataclasses.replace(tiny.vae, kl=True, channels=(32, 32, 32, 32)),
            visual_pooling=VisualPooling.POOLED,
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vision_encoder", "llm", "unet", "unet_plain", "vae_decoder", "phrase_encoder"])
def test_stage_exports_and_matches(paper_like: MgccModel, tmp_path: Path, name: str) -> None:
    (stage,) = collect_stages(paper_like, [name])
    maker = ExampleMaker(paper_like)
    path = tmp_path / f"{name}.onnx"
    export_stage(stage.module, stage.spec, stage.axes, maker.trace_inputs(stage), path)
    found = validate_stage(
        path, stage.module, stage.spec, value_cases(stage), lambda lengths: maker.inputs(stage.spec, lengths)
    )
    assert len(found) == len(value_cases(stage)) * len(stage.spec.outputs)
