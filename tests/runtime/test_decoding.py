"""Choosing tokens, against slow formulas written another way."""

import numpy as np
import pytest

from mgcc_runtime.decoding import TextOptions, choose_token, text_generator, wants_picture
from mgcc_runtime.errors import OptionError

GREEDY = TextOptions(repetition_penalty=1.0)


def choose(logits, options=GREEDY, written=(), forbidden=(), seed=0):
    return choose_token(np.array(logits, np.float32), written, forbidden, options, text_generator(seed))


def test_greedy():
    assert choose([0.1, 3, 2]) == 1


def test_forbidden():
    assert choose([0.1, 3, 2], forbidden=[1]) == 2


def test_repetition_penalty_moves_both_signs_down():
    penalty = TextOptions(repetition_penalty=2.0)
    assert choose([3, 2, 1], penalty, written=[0, 0]) == 1  # 3 / 2 = 1.5
    assert choose([-1, -1.5, -9], penalty, written=[0]) == 1  # -1 * 2 = -2
    assert choose([3, 1, 1], penalty, written=[0, 0]) == 0  # once, however often it was written


def test_logits_stay_as_they_were():
    logits = np.array([1, 2, 3], np.float32)
    choose_token(logits, [2], [0], TextOptions(repetition_penalty=9.0), text_generator(0))
    assert logits.tolist() == [1, 2, 3]


def draws(options, logits, count=4000):
    generator = text_generator(1)
    found = [choose_token(np.array(logits, np.float32), (), (), options, generator) for _ in range(count)]
    return np.bincount(found, minlength=len(logits)) / count


def test_temperature_follows_the_softmax():
    logits = np.array([2.0, 1.0, 0.0, -1.0])
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    found = draws(TextOptions(temperature=0.7, repetition_penalty=1.0), logits)
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_top_p_keeps_the_fewest_that_reach_it():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    found = draws(TextOptions(temperature=1.0, top_p=0.7, repetition_penalty=1.0), logits)
    np.testing.assert_allclose(found, [0.625, 0.375, 0, 0], atol=0.03)
    assert draws(TextOptions(temperature=1.0, top_p=0.01, repetition_penalty=1.0), logits)[0] == 1


def test_seed_repeats():
    options = TextOptions(temperature=1.0)
    logits = np.zeros(50)
    assert choose(logits, options, seed=5) == choose(logits, options, seed=5)
    assert len({choose(logits, options, seed=i) for i in range(20)}) > 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.5}, {"repetition_penalty": 0},
        {"temperature": "0.7"}, {"temperature": None}, {"temperature": True}, {"top_p": "1"}, {"top_p": [0.5]},
        {"top_p": float("nan")}, {"repetition_penalty": None}, {"repetition_penalty": float("inf")},
    ],
)  # fmt: skip
def test_options_out_of_range(wrong):
    with pytest.raises(OptionError, match=f"{next(iter(wrong))} is .*, expected"):
        TextOptions(**wrong)


@pytest.mark.parametrize(
    ("image", "words", "drawn"),
    [
        (3.0, [2.0, 1.0], True),
        (3.0, [2.5, 2.5], False),
        (400.0, [399.0, -5.0], True),
        (-400.0, [-399.0, -500.0], False),
    ],
)
def test_a_picture_is_wanted_where_img1_outweighs_all_words(image, words, drawn):
    """Against the softmax itself, whose sum of words it is."""
    logits = np.array([*words, image, 1e4], np.float32)  # the other [IMG] tokens have no say
    shares = np.exp(np.float64([*words, image]) - max(image, *words))
    assert (shares[-1] > shares[:-1].sum()) == drawn
    assert wants_picture(logits, (2, 3)) == drawn
