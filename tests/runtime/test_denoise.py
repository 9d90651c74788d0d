"""The table against the solver it stands for."""

import json

import numpy as np
import pytest

from mgcc_runtime.denoise import Schedule, ScheduleTable, denoise, initial_noise
from mgcc_runtime.errors import BundleError, OptionError
from tests.runtime.tiny_bundle import make_schedule


@pytest.fixture
def schedule(tmp_path):
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(make_schedule()))
    return Schedule.load(path)


def advance(coefficients, latents, predictions):
    """The solver's step on the host."""
    terms = [*latents, *predictions]
    assert len(terms) == len(coefficients)
    return sum(c * x for c, x in zip(coefficients, terms, strict=True))


def test_table_is_euler(schedule):
    def network(x, t):
        return np.sin(x) + np.float32(t / 1000)

    x = noise = initial_noise(0, (1, 2, 4, 4))
    table = schedule.table(4)
    found = list(denoise(table, noise, lambda i, x, t: network(x, t), advance))
    for i, t in enumerate(table.timesteps):
        x = x - network(x, t) / 4
        np.testing.assert_allclose(found[i], x, atol=1e-6)
    assert found[-1].dtype == np.float32


def test_multistep_looks_back():
    """x_3 of x_2, x_1, p_2 and p_1; what was before the first step counts nothing, whatever stands for it."""
    rows = np.array([[0.5, 0, 2, 0], [0.25, 1, 3, -1], [2, -1, 1, 4]], np.float32)
    seen = []

    def predict(i, x, t):
        seen.append((i, float(x[0, 0, 0, 0]), t))
        return np.full_like(x, i + 1)

    noise = np.ones((1, 1, 1, 1), np.float32)
    *_, last = denoise(ScheduleTable((9.0, 4.0, 1.0), 2.0, rows), noise, predict, advance)
    # from 2 on: half of it and twice the first prediction; then 3 / 4 + 2 + 3 * 2 - 1
    assert seen == [(0, 2.0, 9.0), (1, 3.0, 4.0), (2, 7.75, 1.0)]
    assert float(last[0, 0, 0, 0]) == 2 * 7.75 - 3 + 1 * 3 + 4 * 2


def test_noise_is_the_agreed_one():
    expected = np.random.default_rng(7).standard_normal((1, 2, 4, 4), dtype=np.float32)
    np.testing.assert_array_equal(initial_noise(7, (1, 2, 4, 4)), expected)


def test_unknown_number_of_steps(schedule):
    with pytest.raises(OptionError, match=r"steps is 3, expected one of 1, 2, 4; the bundle's default is 4"):
        schedule.table(3)


def test_gates_are_on_for_the_first_part(schedule):
    assert [schedule.gated_evaluations(schedule.table(n)) for n in (1, 2, 4)] == [0, 0, 1]


def test_table_of_wrong_form(tmp_path):
    values = make_schedule()
    values["tables"]["2"]["coefficients"].pop()
    (tmp_path / "s.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match="is not of the expected form"):
        Schedule.load(tmp_path / "s.json")
