"""`LayoutHead`: shapes, both kinds of queries, selection, masking; matching and pointer targets of its training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mgcc_ref.config import GrounderConfig, QuerySource
from mgcc_ref.model import MgccModel
from mgcc_ref.networks.grounder import CENTRE_BINS, BoxHead, LayoutHead, QueryAnswers, as_told, cxcywh_to_xyxy
from mgcc_ref.prompting import build_prompt, closing_ids
from mgcc_ref.story.world.scene import Background, Scene, place
from mgcc_ref.train.features import Reading, point_ends, read_conversation
from mgcc_ref.train.grounder_targets import Targets
from mgcc_ref.train.layout_score import score_layout
from mgcc_ref.train.mentions import mention_positions
from mgcc_ref.train.requests import Request, training_conversation
from mgcc_ref.train.steps.grounder import answer_loss, match


def head(source: QuerySource) -> LayoutHead:
    torch.manual_seed(1)
    config = GrounderConfig(
        source, slots_per_label=2, hidden=32, encoder_layers=1, layers=2, rounds=2, heads=2, feed_forward=64
    )
    return LayoutHead(config, 128, 64, objects=4, label_embeddings=torch.randn(6, 16)).eval()


@pytest.mark.parametrize("source", list(QuerySource))
@torch.no_grad()
def test_outputs_are_the_contracts_and_most_present_first(source: QuerySource) -> None:
    features, mask = torch.randn(1, 11, 128), torch.ones(1, 11, dtype=torch.bool)
    boxes, presence, phrases, pointers = head(source)(features, mask)
    assert (boxes.shape, presence.shape, phrases.shape, pointers.shape) == ((1, 4, 4), (1, 4), (1, 4, 16), (1, 4, 11))
    assert bool((presence[:, :-1] >= presence[:, 1:]).all())
    assert float(boxes.min()) >= 0 and float(boxes.max()) <= 1
    assert bool((boxes[..., 2:] >= boxes[..., :2]).all())
    torch.testing.assert_close(pointers.sum(-1), torch.ones(1, 4))


@torch.no_grad()
def test_label_queries_return_exact_rows_of_the_label_table() -> None:
    model = head(QuerySource.LABELS)
    _, _, phrases, _ = model(torch.randn(1, 7, 128), torch.ones(1, 7, dtype=torch.bool))
    distance = torch.cdist(phrases[0], model.query_phrases)
    assert float(distance.min(dim=1).values.max()) == 0.0


@torch.no_grad()
def test_what_the_mask_hides_changes_nothing() -> None:
    model = head(QuerySource.LEARNED)
    features, mask = torch.randn(1, 9, 128), torch.arange(9).unsqueeze(0) < 6
    changed = features.clone()
    changed[:, 6:] = -50.0
    for a, b in zip(model(features, mask), model(changed, mask), strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_padding_on_the_left_changes_nothing() -> None:
    """Batches are trained padded, requests are read alone: positions count from the end, and relative to each other."""
    model = head(QuerySource.LABELS)
    features = torch.randn(1, 9, 128)
    alone = model(features, torch.ones(1, 9, dtype=torch.bool))
    padded = model(torch.nn.functional.pad(features, (0, 0, 4, 0)), torch.arange(13).unsqueeze(0) >= 4)
    for a, b in zip(alone[:3], padded[:3], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone[3], padded[3][..., 4:], atol=1e-5, rtol=1e-4)
    turned = model(features.flip(1), torch.ones(1, 9, dtype=torch.bool))
    assert (turned[0] - alone[0]).abs().max() > 1e-4, "the order of the context counts"


def test_a_rounds_answers_reach_the_next_without_gradient() -> None:
    model = head(QuerySource.LABELS).train()
    answers, _, _ = model.all_queries(torch.randn(1, 7, 128), torch.ones(1, 7, dtype=torch.bool))
    assert len(answers) == model.rounds == 2
    told = as_told(answers[0])
    assert told.shape[-1] == 2 * CENTRE_BINS + 3 and not told.requires_grad
    answers[1].bins.sum().backward()
    assert model.answered.weight.grad is not None and model.answered.weight.grad.abs().sum() > 0


def test_boxes_are_clipped_to_the_picture() -> None:
    torch.testing.assert_close(cxcywh_to_xyxy(torch.tensor([0.1, 0.5, 0.4, 0.2])), torch.tensor([0.0, 0.4, 0.3, 0.6]))


def test_matching_prefers_the_right_phrase_over_the_nearer_box() -> None:
    phrases = torch.eye(3, 16)
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2], [0.9, 0.9, 0.2, 0.2]])
    targets = Targets(torch.tensor([[0.1, 0.1, 0.2, 0.2]]), torch.zeros(1, 4), torch.eye(3, 16)[2:], (2,), ((),))
    queries, objects = match(boxes, torch.zeros(3), phrases, targets)
    assert (queries.tolist(), objects.tolist()) == ([2], [0])


def test_pointer_targets_are_the_last_mention_or_the_image(tiny: MgccModel) -> None:
    from PIL import Image

    shown = Scene(Background.SNOW, (place("fox", (0.8, 0.8), 30), place("cat", (0.2, 0.2), 30)))
    parts = ("the cat is here", Image.fromarray(np.zeros((128, 128, 3), np.uint8)), "my friend and the cat")
    request = Request(parts, (shown,), shown, ())
    found = mention_positions(tiny, request, {"fox", "cat", "bus"})
    from mgcc_ref.prompting import prompt_ids

    ids = prompt_ids(tiny, parts)
    assert [ids[p] for p in found["cat"]] == [tiny.tokenizer.token_to_id("cat")]
    assert found["cat"][0] > ids.index(-1), "the last mention, after the picture"
    assert found["fox"] == [ids.index(-1) + 3], "the bottom-right quadrant's visual token"
    assert "bus" not in found


def test_a_palm_tree_is_no_mention_of_a_tree(tiny: MgccModel) -> None:
    shown = Scene(Background.BEACH, (place("tree", (0.2, 0.2), 30), place("palm tree", (0.8, 0.8), 30)))
    request = Request(("a tree and a palm tree",), (), shown, ())
    found = mention_positions(tiny, request, {"tree", "palm tree"})
    assert len(found["tree"]) == 1
    assert len(found["palm tree"]) == 2
    assert found["tree"][0] < found["palm tree"][0]


def test_matching_keeps_labels_apart_that_point_the_same_way() -> None:
    """Two phrases at cosine 0.999: the box may not talk the matching into the wrong one."""
    cat = torch.ones(16)
    lion = cat + 0.05 * torch.arange(16) / 16
    boxes = torch.tensor([[0.9, 0.9, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2]])
    targets = Targets(torch.tensor([[0.1, 0.1, 0.2, 0.2]]), torch.zeros(1, 4), cat.unsqueeze(0), (0,), ((),))
    queries, _ = match(boxes, torch.zeros(2), torch.stack([cat, lion]), targets)
    assert queries.tolist() == [0]


@torch.no_grad()
def test_a_place_left_open_is_not_drawn_in_the_middle() -> None:
    """Two equal modes, left and right: the centre is one of them, not their mean."""
    box_head = BoxHead(8)
    for parameter in box_head.parameters():
        parameter.zero_()
    out = box_head.layers[-1]
    assert isinstance(out, torch.nn.Linear)
    out.bias[[3, 20]] = 9.0
    boxes, _ = box_head(torch.zeros(1, 8))
    modes = [(mode + 0.5) / CENTRE_BINS for mode in (3, 20)]
    assert min(abs(float(boxes[0, 0]) - mode) for mode in modes) < 0.02


@torch.no_grad()
def test_one_reading_serves_every_point_of_a_conversation(tiny: MgccModel) -> None:
    """Rows of a shared pass are the features of each request read alone."""
    conversation = next(
        c for c in (training_conversation(1, i) for i in range(99)) if len(c.points) > 2 and any(c.scenes)
    )
    reading = Reading(read_conversation(tiny, conversation), point_ends(tiny, conversation), len(closing_ids(tiny)))
    for i, point in enumerate(conversation.points):
        prompt = build_prompt(tiny, conversation.parts[: point.parts])
        alone = tiny.llm(prompt.embeddings, *tiny.llm.empty_cache())[1][0]
        shared = torch.from_numpy(reading.context(i)).float()
        torch.testing.assert_close(shared, alone, rtol=0, atol=0.01)
        assert not torch.allclose(shared[:-1], alone[1:], atol=0.1), "rows are told apart"


def test_layout_scores_count_places_against_drawn_anchors() -> None:
    """An object told to be right of another moves with it; alone on the wrong side it is found, but not placed."""
    story = next(
        c for c in (training_conversation(2, i) for i in range(99)) if any(f.anchors for f in c.points[-1].facts)
    )
    request = story.request(-1)
    layout = [(o.label, o.box) for o in request.target.objects]
    perfect = score_layout(layout, request)
    assert perfect.whole and perfect.placed == len(layout)
    moved = next(f for f in request.facts if f.anchors)
    x1, y1, x2, y2 = layout[moved.index][1]
    shift = 1.2  # out of the picture: right of nothing
    layout[moved.index] = (moved.label, (x1 + shift, y1, x2 + shift, y2))
    score = score_layout(layout, request)
    assert score.found == perfect.found and score.placed < perfect.placed and not score.whole
    assert not score_layout(layout[1:], request).whole


def test_in_a_region_every_centre_and_size_is_right() -> None:
    """Without a region, only the box is; outside of the region, the centre is wrong."""
    bins = torch.full((1, 1, 2, CENTRE_BINS), -30.0)
    bins[0, 0, 0, 2], bins[0, 0, 1, 20] = 30.0, 30.0  # at about (0.10, 0.85)
    answer = QueryAnswers(torch.tensor([[[0.10, 0.85, 0.3, 0.3]]]), bins, torch.full((1, 1), 30.0))
    wanted = torch.tensor([[0.25, 0.75, 0.2, 0.2]])
    left_bottom, left, right = (0.0, 0.7, 0.3, 1.0), (0.0, 0.0, 0.3, 1.0), (0.7, 0.0, 1.0, 1.0)

    def loss(region: tuple[float, ...]) -> float:
        first = torch.tensor([0])
        return float(answer_loss(answer, torch.ones(1, 1), first, first, wanted, torch.tensor([region])))

    assert loss(left_bottom) == pytest.approx(0, abs=1e-3)
    assert loss(left) == pytest.approx(0, abs=1e-3)
    assert loss(right) > 10
    assert loss((0.0,) * 4) > 10
