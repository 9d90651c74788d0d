"""Which engine and precision costs least for a stage on this machine, in time and memory, within a quality budget."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mgcc_calibration.analysis.sensitivity import signal_to_noise_db, spread, worst_error
from mgcc_calibration.candidates.candidate import Candidate, Engine, GraphForm
from mgcc_calibration.data.samples import Feeds
from mgcc_calibration.errors import BudgetError, DataError
from mgcc_calibration.quantise.observe import Samples
from mgcc_ref.precision import Precision
from mgcc_runtime.contract import StageSpec, past_names
from mgcc_runtime.engines import Array, EngineOptions, Session, open_session
from mgcc_runtime.errors import EngineError
from mgcc_runtime.names import weights_file

#: Tokens of text in the turn that a language model's calls are weighted by; it has one prefill, one [IMG] pass.
DECODE_STEPS = 24

#: At most so many calls of one case in a round.
_IN_A_ROW = 4

#: Boxes are read from what the vision tower sees. With 8-bit activations at 27.6 dB it moved something in one of 48
#: judged pictures, which the judge bears, but lost 1.2 points of whole scenes on 500 stories.
_LEAST_DB = {"vision_encoder": 38.0}

#: Of a measured candidate (its place among those measured), the share of requests that still get fp32's picture.
Judge = Callable[[int], float]


@dataclass(frozen=True)
class Case:
    """Inputs that a stage meets, and how often in a request."""

    name: str
    feeds: Feeds
    calls: int


def workload(spec: StageSpec, samples: Samples, steps: int = 1) -> list[Case]:
    """What is timed: for the language model a prefill, the [IMG] tokens and decode steps; else one call.

    The UNet has one call for each of `steps` denoising steps.
    """
    if spec.name != "llm":
        chosen = spread(samples, 1)
        if not chosen:
            raise DataError(f"there is no calibration data of stage {spec.name} to time it on; capture some")
        return [Case("call", chosen[0], steps if spec.name.startswith("unet") else 1)]
    found: dict[str, list[Feeds]] = {"prefill": [], "image_tokens": [], "decode": []}
    for feeds in samples():
        past = feeds[past_names(1)[0]].shape[2]
        kind = "prefill" if past == 0 else "decode" if feeds["inputs_embeds"].shape[1] == 1 else "image_tokens"
        found[kind].append(feeds)
    calls = {"decode": DECODE_STEPS}
    return [Case(k, _middle(entries), calls.get(k, 1)) for k, entries in found.items() if entries]


def _middle(entries: list[Feeds]) -> Feeds:
    """The entry of middle length."""
    return sorted(entries, key=lambda f: f["inputs_embeds"].shape[1] + f[past_names(1)[0]].shape[2])[len(entries) // 2]


@dataclass(frozen=True)
class Measurement:
    """One candidate on this machine. `refused`: why it cannot be chosen; empty if it can."""

    engine: Engine
    precision: Precision
    bytes: int
    total_ms: float | None  # of the workload's calls
    calls_ms: dict[str, float]  # the quickest of all rounds, by case: what else ran on the machine only adds
    error: float | None  # relative L2 of the worst output against fp32
    signal_to_noise_db: float | None
    same_pictures: float | None  # share of the judged requests; None: not judged
    refused: str = ""
    form: GraphForm = GraphForm.EXPORTED


@dataclass(frozen=True)
class Choice:
    """What was measured for a stage and what was chosen."""

    stage: str
    chosen: Measurement
    measurements: tuple[Measurement, ...]
    least_db: float
    least_same: float | None  # None: there was no judge

    @property
    def place(self) -> int:
        """The chosen measurement's place, in the candidates' order."""
        return next(i for i, m in enumerate(self.measurements) if m is self.chosen)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Budget:
    """What a candidate has to keep to. `least_db` None: `_LEAST_DB` of the stage, else 25 dB, or 20 with a judge.

    The story's UNet in int8 beside bf16 has 24.8 or 25.5 dB, by the set of weights, and changes none of 48 pictures.
    """

    least_db: float | None = None
    least_same: float = 0.95  # of the judged pictures: two of 48 may change
    #: What a MB of weights counts for, in ms of a turn. With 0.2 a graph of its own for decoding (100 MB in 4 bits)
    #: has to save 20 ms, some 3 % of a turn on two cores; 0: time alone decides.
    ms_per_mb: float = 0.2

    def floor_db(self, stage: str, *, judged: bool) -> float:
        """Signal to noise below which a stage's candidate is refused before any picture is drawn."""
        if self.least_db is not None:
            return self.least_db
        return _LEAST_DB.get(stage, 20.0 if judged else 25.0)


@dataclass(frozen=True)
class Measuring:
    """How candidates are measured."""

    least_db: float = 25.0  # signal to noise below which one is refused
    rounds: int = 10
    threads: int = 0  # of an engine; 0: one each core
    steps: int = 1  # of denoising, in a turn


_USUAL = Measuring()


def measure(
    spec: StageSpec, candidates: Sequence[Candidate], samples: Samples, how: Measuring = _USUAL
) -> list[Measurement]:
    """Time and compare the candidates; the first must be fp32 on ONNX Runtime, which the others are compared with.

    Rounds go over all candidates in turn, so that a machine that is busy for a while is so for all of them.
    """
    cases, options = workload(spec, samples, how.steps), EngineOptions(how.threads)
    sessions: list[Session | None] = []
    refused: list[str] = []
    for candidate in candidates:
        session, reason = _opened(spec, candidate, options)
        sessions.append(session)
        refused.append(reason)
    try:
        exact, compared = sessions[0], spread(samples, 4)
        assert exact is not None, refused[0]
        expected = [_outputs(exact, feeds) for feeds in compared]
        errors = [_error(spec, session, compared, expected) if session else None for session in sessions]
        times = _times(sessions, cases, how.rounds)
    finally:
        for session in sessions:
            if session is not None:
                session.close()
    return [
        _measurement(candidate, error, calls, cases, reason, how.least_db)
        for candidate, error, calls, reason in zip(candidates, errors, times, refused, strict=True)
    ]


def choose(
    stage: str,
    measurements: Sequence[Measurement],
    budget: Budget = Budget(),
    judge: Judge | None = None,
    *,
    lower: bool = False,
) -> Choice:
    """`choose_graphs` for a stage that is used in one way."""
    return choose_graphs({stage: measurements}, budget, {stage: judge}, lower=lower)[stage]


def choose_graphs(
    measured: Mapping[str, Sequence[Measurement]],
    budget: Budget,
    judges: Mapping[str, Judge | None],
    *,
    lower: bool = False,
) -> dict[str, Choice]:
    """What costs least for the uses of one stage together, within the budget; BudgetError if nothing keeps to it.

    `measured`: of each use the same candidates in the same order, fp32 first. A cost is the time of a turn's calls and
    what the graphs' weights are counted for; a graph that serves both uses is held once, and two together may not be
    larger than the fp32 graph. What costs least is judged, and refused if it changes too many pictures; then the next.
    fp32 needs no judge. With `lower` fp32 is the way out alone: whatever else keeps to the budget goes before it.
    """
    found = {use: list(entries) for use, entries in measured.items()}
    while True:
        places = _cheapest({use: _fitting(use, entries, lower=lower) for use, entries in found.items()}, found, budget)
        refused = False
        for use, place in places.items():
            judge, entry = judges.get(use), found[use][place]
            if judge is not None and entry.precision is not Precision.FP32 and entry.same_pictures is None:
                found[use][place] = _judged(entry, judge(place), budget)
                refused = refused or bool(found[use][place].refused)
        if not refused:
            break
    return {
        use: Choice(
            use, entries[places[use]], tuple(entries), budget.floor_db(use, judged=judges.get(use) is not None),
            None if judges.get(use) is None else budget.least_same,
        )
        for use, entries in found.items()
    }  # fmt: skip


def _fitting(use: str, entries: Sequence[Measurement], *, lower: bool) -> list[int]:
    """Places of the measurements that may be chosen for a use."""
    fit = [place for place, m in enumerate(entries) if not m.refused and m.total_ms is not None]
    if not fit:
        reasons = "; ".join(f"{m.engine} {m.precision}: {m.refused}" for m in entries)
        raise BudgetError(f"no candidate for stage {use} keeps to the budget ({reasons}); loosen it")
    return ([place for place in fit if entries[place].precision is not Precision.FP32] or fit) if lower else fit


def _cheapest(
    fit: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[Measurement]], budget: Budget
) -> dict[str, int]:
    """The place of each use's graph in the cheapest combination; all combinations are compared."""
    any_use = next(iter(found))

    def size(places: Sequence[int]) -> int:
        return sum(found[any_use][place].bytes for place in set(places))

    def cost(places: Sequence[int]) -> tuple[float, int]:
        spent = sum(found[use][place].total_ms or 0.0 for use, place in zip(fit, places, strict=True))
        return spent + budget.ms_per_mb * size(places) / 1e6, size(places)

    every = list(itertools.product(*fit.values()))
    held = [places for places in every if len(set(places)) == 1 or size(places) <= found[any_use][0].bytes]
    best: tuple[int, ...] = min(held or every, key=cost)
    return dict(zip(fit, best, strict=True))


def _judged(entry: Measurement, same: float, budget: Budget) -> Measurement:
    refused = "" if same >= budget.least_same else (
        f"{same:.3f} of the judged pictures stay the same, at least {budget.least_same:g} is asked for"
    )  # fmt: skip
    return replace(entry, same_pictures=same, refused=refused)


def _opened(spec: StageSpec, candidate: Candidate, options: EngineOptions) -> tuple[Session | None, str]:
    if candidate.path is None:
        return None, candidate.note
    try:
        return open_session(candidate.engine.value, candidate.path, spec, options), ""
    except EngineError as error:
        return None, str(error)


def _outputs(session: Session, feeds: Feeds) -> dict[str, Array]:
    return dict(session.run(feeds).arrays)


def _error(spec: StageSpec, session: Session, compared: Sequence[Feeds], expected: Sequence[dict[str, Array]]) -> float:
    """Relative L2 of the worst output that counts, over all samples; infinite where the engine fails."""
    try:
        return worst_error(spec, [_outputs(session, feeds) for feeds in compared], expected)
    except EngineError:
        return float("inf")


def _times(sessions: Sequence[Session | None], cases: Sequence[Case], rounds: int) -> list[dict[str, list[float]]]:
    """Milliseconds of each round, by case; the first round warms up and does not count.

    What a request calls often is called some times in a row: weights that fit the processor's cache stay there, as in
    use, though the other candidates' weights put them out in each round.
    """
    found: list[dict[str, list[float]]] = [{case.name: [] for case in cases} for _ in sessions]
    calls = [case for case in cases for _ in range(min(case.calls, _IN_A_ROW))]
    for turn in range(rounds + 1):
        for session, times in zip(sessions, found, strict=True):
            if session is None:
                continue
            for case in calls:
                started = time.perf_counter()
                try:
                    session.run(case.feeds)
                except EngineError:
                    continue  # its error is infinite already, so it is refused
                if turn:
                    times[case.name].append((time.perf_counter() - started) * 1e3)
    return found


def _measurement(
    candidate: Candidate, error: float | None, times: dict[str, list[float]], cases: Sequence[Case],
    reason: str, least_db: float,
) -> Measurement:  # fmt: skip
    calls = {name: round(min(values), 4) for name, values in times.items() if values}
    total = round(sum(case.calls * calls[case.name] for case in cases), 4) if len(calls) == len(cases) else None
    decibels = None if error is None else signal_to_noise_db(error)
    if not reason and decibels is not None and decibels < least_db:
        reason = f"signal to noise of {decibels:.1f} dB, at least {least_db:g} is asked for"
    size = stage_bytes(candidate.path) if candidate.path else 0
    return Measurement(
        candidate.engine, candidate.precision, size, total, calls, error, decibels, None, reason, candidate.form
    )


def stage_bytes(path: Path) -> int:
    """Size of a graph with the file of its weights, if that is another."""
    data = path.with_name(weights_file(path.name))
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)
