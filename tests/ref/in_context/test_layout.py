"""`InContextLayout`: whatever the language model's logits are, a layout comes out, and the model's own where it can."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mgcc_ref.config import get_profile
from mgcc_ref.in_context.layout import InContextLayout, ModelStep, in_context_layout
from mgcc_ref.in_context.layout_grammar import ALPHABET, GrammarState, LayoutGrammar
from mgcc_ref.in_context.token_trie import TokenTrie, token_texts
from mgcc_ref.model import load_model
from mgcc_runtime.layout_text import DEFAULT_PROMPT, read_layout, write_layout
from tests.tolerances import REORDERED_FP32

EXAMPLES = DEFAULT_PROMPT.examples

LABELS = ("bus", "ball", "balloon", "palm tree", "fox", "moon")
CLOSED = LayoutGrammar(3, LABELS)
FREE = LayoutGrammar(3, max_label_words=2, max_label_chars=9)
GRAMMARS = pytest.mark.parametrize("grammar", [CLOSED, FREE], ids=["closed", "free"])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Byte-level, with merges across spaces and lines: tokens such as `]\\nball: [0.` are the hard case for a mask."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=["<eos>"], show_progress=False
    )
    rng = random.Random(0)
    texts = []
    for _ in range(300):
        objects = []
        for _ in range(rng.randint(1, 4)):
            x1, y1 = rng.randint(0, 60) / 100, rng.randint(0, 60) / 100
            objects.append((rng.choice(LABELS), (x1, y1, x1 + 0.2, y1 + 0.3)))
        texts.append(write_layout(objects) + "\n\nCaption: ")
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def trie(tokenizer) -> TokenTrie:
    return TokenTrie(token_texts(tokenizer))


def spelled(text: str, tokenizer: Tokenizer) -> list[int]:
    """The text in the longest tokens that a layout may have."""
    texts, ids = TokenTrie(token_texts(tokenizer)).texts, []
    while text:
        ids.append(max((i for i in texts if text.startswith(texts[i])), key=lambda i: len(texts[i])))
        text = text[len(texts[ids[-1]]) :]
    return ids


def slow_line(line: str, grammar: LayoutGrammar) -> bool:
    """Whether `line` (without its newline) is valid: by pattern and arithmetic, sharing no code with the grammar."""
    match = re.match(r"^([a-z]+(?: [a-z]+)*): \[(\d\.\d\d), (\d\.\d\d), (\d\.\d\d), (\d\.\d\d)\]$", line)
    if not match:
        return False
    label, (x1, y1, x2, y2) = match[1], (round(100 * float(v)) for v in match.groups()[1:])
    if grammar.labels:
        known = label in grammar.labels
    else:
        known = len(label) <= grammar.max_label_chars and label.count(" ") < grammar.max_label_words
    return known and 0 <= x1 <= x2 - grammar.min_side and 0 <= y1 <= y2 - grammar.min_side and max(x2, y2) <= 100


def slow_finishable(text: str, grammar: LayoutGrammar) -> bool:
    """Whether some continuation makes `text` a valid layout: tries concrete endings and asks `slow_line`."""
    *lines, last = text.split("\n")
    if len(lines) > grammar.max_lines or not all(slow_line(line, grammar) for line in lines):
        return False
    if last in ("", "E", "EN", "END"):
        return True
    return len(lines) < grammar.max_lines and slow_line_finishable(last, grammar)


def slow_line_finishable(start: str, grammar: LayoutGrammar) -> bool:
    boxes = ["0.00, 0.00, 1.00, 1.00]"]
    label, bracket, rest = start.partition("[")
    if not bracket:
        endings = [f"{name}: [" for name in grammar.labels] or [start + e for e in (": [", "a: [", " [", "[")]
        return any(e.startswith(start) and slow_line(e + boxes[0], grammar) for e in endings)
    numbers = rest.split(", ")
    *done, partial = numbers
    # The last, unfinished piece can be any coordinate that begins like it; later ones are tried at their extremes.
    values = [f"{n / 100:.2f}" for n in range(101)]
    comma = partial.endswith(",")
    pieces = [v for v in values if (v == partial[:-1] if comma else f"{v}]".startswith(partial))]
    if len(done) < 3 and partial.endswith("]"):
        return False
    for piece in pieces:
        later = {0: ["0.00", "1.00", "1.00"], 1: ["1.00", "1.00"], 2: ["1.00"], 3: []}.get(len(done))
        if later is None or (comma and len(done) == 3):
            continue
        if slow_line(f"{label}[{', '.join([*done, piece, *later])}]", grammar):
            return True
    return False


def random_texts(grammar: LayoutGrammar, trie: TokenTrie, seed: int) -> list[str]:
    """Every text on the way of one random walk through the grammar."""
    rng, state, text, seen = random.Random(seed), GrammarState(), "", [""]
    while not state.done:
        text += (piece := trie.texts[rng.choice(trie.allowed(grammar, state).tolist())])
        state = grammar.advance_text(state, piece)
        seen.append(text)
    return seen


@GRAMMARS
@pytest.mark.parametrize("seed", range(4))
def test_mask_is_what_a_slow_parser_allows(grammar, trie, seed):
    """Both ways: no token of the vocabulary that a layout can go on with is masked, and no other passes."""
    for text in random_texts(grammar, trie, seed)[:40]:
        state = grammar.advance_text(GrammarState(), text)
        expected = {
            token
            for token, piece in trie.texts.items()
            if not text.endswith("END") and slow_finishable(text + piece, grammar)
        }
        assert set(trie.allowed(grammar, state).tolist()) == expected, text


@GRAMMARS
def test_every_walk_ends_in_a_valid_layout(grammar, trie):
    for seed in range(200):
        *lines, last = random_texts(grammar, trie, seed)[-1].split("\n")
        assert last == "END" and len(lines) <= grammar.max_lines
        assert all(slow_line(line, grammar) for line in lines)


class Adversary:
    """Logits from a function of (step number, vocabulary size); counts its calls."""

    def __init__(self, tokenizer: Tokenizer, logits) -> None:
        self.size, self.logits, self.calls = tokenizer.get_vocab_size(), logits, 0

    def __call__(self, token_ids, cache):
        self.calls += 1
        return self.logits(self.calls, self.size).astype(np.float32), self.calls


def favour(ids, value=1e4):
    def logits(call, size):
        found = np.zeros(size)
        found[ids] = value
        return found

    return logits


@GRAMMARS
def test_random_logits_always_parse(grammar, tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(150):
        scale = 10 ** rng.uniform(-2, 3)
        step = Adversary(tokenizer, lambda call, size, scale=scale: scale * rng.standard_normal(size))
        layout = InContextLayout(step, tokenizer, grammar, max_positions=1024).ground("A fox under a palm tree.")
        for item in layout:
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 and 0 < item.score <= 1
            assert slow_line(write_layout([(item.label, item.box)]).split("\n")[0], grammar)


@GRAMMARS
@pytest.mark.parametrize(
    "wish",
    [
        lambda t: favour([t.token_to_id("<eos>")]),
        lambda t: favour([i for i, text in token_texts(t).items() if text[0] in "END"]),
        lambda t: favour([i for i, text in token_texts(t).items() if text[0] in "END"], -1e4),
        lambda t: favour([i for i, text in token_texts(t).items() if text == "z"]),
        lambda t: lambda call, size: np.full(size, np.nan),
        lambda t: lambda call, size: np.where(np.arange(size) % 2, np.inf, -np.inf),
    ],
    ids=["end of text at once", "END at once", "never END", "one letter for ever", "NaN", "infinities"],
)
def test_stubborn_logits_still_parse(grammar, tokenizer, wish):
    step = Adversary(tokenizer, wish(tokenizer))
    grounder = InContextLayout(step, tokenizer, grammar, max_positions=1024)
    written = grounder.write([[0]], grammar)
    assert len(read_layout(written.text)) == len(written.scores) <= grammar.max_lines
    assert step.calls <= grammar.max_lines * grammar.longest_line + len("END")


def test_end_at_once_gives_no_object(tokenizer):
    step = Adversary(tokenizer, favour([i for i, text in token_texts(tokenizer).items() if text[0] in "END"]))
    assert InContextLayout(step, tokenizer, CLOSED, max_positions=1024).ground("Nothing at all.") == ()


def test_a_scripted_model_gets_its_boxes(tokenizer):
    """A model that wants this text gets exactly this layout, though it would rather say something else each time."""
    wanted = "fox: [0.10, 0.52, 0.38, 0.90]\npalm tree: [0.00, 0.05, 0.96, 1.00]\nEND"
    script = spelled(wanted, tokenizer)

    def logits(call, size):
        found = np.zeros(size)
        found[script[call - 1]] = 20.0
        found[tokenizer.token_to_id("<eos>")] = 30.0
        return found

    grounder = InContextLayout(Adversary(tokenizer, logits), tokenizer, CLOSED, max_positions=1024)
    fox, palm = grounder.ground("A fox under a palm tree.")
    assert (fox.label, fox.box) == ("fox", (0.10, 0.52, 0.38, 0.90))
    assert (palm.label, palm.box) == ("palm tree", (0.00, 0.05, 0.96, 1.00))
    assert fox.score > 0.999  # the wish for <eos> is masked out before the probabilities are taken


def test_a_repeated_line_counts_once(tokenizer):
    line = "fox: [0.10, 0.52, 0.38, 0.90]\n"
    script = spelled(line * 3 + "END", tokenizer)
    step = Adversary(tokenizer, lambda call, size: favour([script[call - 1]])(call, size))
    assert len(InContextLayout(step, tokenizer, CLOSED, max_positions=1024).ground("Foxes.")) == 1


def test_corners_out_of_order_are_refused_character_by_character():
    start = "fox: [0.50, 0.10, 0."
    state = CLOSED.advance_text(GrammarState(), start)
    assert [c for c in "0123456789" if CLOSED.advance(state, c)] == list("56789")
    state = CLOSED.advance_text(GrammarState(), start + "5")
    assert [c for c in "0123456789" if CLOSED.advance(state, c)] == list("456789")  # at least min_side wide


def test_caption_cannot_pose_as_an_example(tokenizer):
    grounder = InContextLayout(Adversary(tokenizer, favour([0])), tokenizer, CLOSED, max_positions=1024)
    (ids,) = grounder.prompt_runs(["A fox.\nLayout:\nEND\n<eos>"])
    assert tokenizer.decode(ids, skip_special_tokens=False).count("Layout:\n") == len(EXAMPLES) + 1
    assert tokenizer.token_to_id("<eos>") not in ids


def test_a_short_context_allows_fewer_lines_and_then_says_so(tokenizer):
    step = Adversary(tokenizer, favour([i for i, text in token_texts(tokenizer).items() if text[0] in "END"], -1e4))
    grounder = InContextLayout(step, tokenizer, CLOSED, max_positions=10_000)
    prompt = len(grounder.prompt_runs(["A fox."])[0])
    grounder.max_positions = prompt + 2 * CLOSED.longest_line + 3
    assert 1 <= len(grounder.ground("A fox.")) <= 2
    with pytest.raises(ValueError, match="shorten the caption"):
        grounder.ground("A fox. " * 400)


def test_layout_text_round_trips():
    objects = list(EXAMPLES[1].objects)
    assert read_layout(write_layout(objects)) == objects
    assert LayoutGrammar(3).advance_text(GrammarState(), write_layout(objects)).done
    with pytest.raises(ValueError, match="no line of a layout"):
        read_layout("fox [0.10]\nEND")
    with pytest.raises(ValueError, match="ends with"):
        read_layout("fox: [0.10, 0.52, 0.38, 0.90]")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_lines": 0}, "max_lines is 0"),
        ({"max_lines": 1, "labels": ("END",)}, "'END' cannot be written"),
        ({"max_lines": 1, "labels": ("a: b",)}, "cannot be written"),
        ({"max_lines": 1, "min_side": 0}, "min_side is 0"),
    ],
)
def test_impossible_grammars_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LayoutGrammar(**options)


def test_word_level_tokenizer_is_refused():
    """The tiny profile's: it has no token for a digit, so no box could be written with it."""
    with pytest.raises(ValueError, match="no token of its own"):
        in_context_layout(load_model("tiny"))


def test_model_step_carries_the_cache():
    model = load_model("tiny")
    step = ModelStep(model)
    whole, _ = step([5, 9, 11, 7], None)
    _, cache = step([5, 9], None)
    pieces, _ = step([11, 7], cache)
    np.testing.assert_allclose(pieces, whole, atol=REORDERED_FP32)
    _, wrong = step([9, 5], None)
    assert np.abs(step([11, 7], wrong)[0] - whole).max() > 1e-3  # the cache matters


def test_a_transformers_model_serves_as_step(tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=2048,
    )  # fmt: skip
    torch.manual_seed(0)
    llm = LlamaForCausalLM(config).eval()

    @torch.no_grad()
    def step(token_ids, cache):
        out = llm(torch.tensor([list(token_ids)]), past_key_values=cache, use_cache=True)
        return out.logits[0, -1].numpy(), out.past_key_values

    grounder = InContextLayout(step, tokenizer, CLOSED, max_positions=2048)
    first, again = grounder.ground("A fox and a ball."), grounder.ground("A fox and a ball.")
    assert first == again
    assert all(item.label in LABELS for item in first)


@pytest.mark.slow
def test_the_story_language_models_tokenizer_fits():
    """Its vocabulary covers the grammar, and an encoded layout passes the mask token by token."""
    from mgcc_ref.published.hub import find_llm
    from mgcc_ref.published.tokenizer_files import load_llm_tokenizer

    profile = get_profile("story")
    tokenizer = load_llm_tokenizer(find_llm(profile.llm.source))
    trie, grammar = TokenTrie(token_texts(tokenizer)), LayoutGrammar(profile.max_objects, profile.labels)
    assert set(trie.texts.values()) >= ALPHABET
    state = GrammarState()
    for token in tokenizer.encode(write_layout(EXAMPLES[1].objects), add_special_tokens=False).ids:
        assert token in trie.allowed(grammar, state)
        state = grammar.advance_text(state, trie.texts[token])
    assert state.done
