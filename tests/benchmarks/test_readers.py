"""The benchmarks' readers against every oddity of bytes."""

import json

from mgcc_benchmarks.ablation.settings import SETTINGS_FILE, read_settings
from mgcc_benchmarks.storybench.evaluation import read_kept
from mgcc_runtime.errors import InputError
from tests.oddities import BY_NAME, check_reader, check_sentence


@BY_NAME
def test_kept_records(tmp_path, oddity):
    """The first line says what the run is of; a whole file of one is taken as it is."""
    path = tmp_path / "r.jsonl"
    if oddity.taken:
        if "\n" not in oddity.spoil({"a": 1}).decode("latin-1"):
            check_reader(oddity, path, {"suite": "stories"}, lambda: read_kept(path, "--resume"))
        return
    path.write_bytes(oddity.spoil({"suite": "stories"}))
    try:
        assert isinstance(read_kept(path, "--resume").identity, dict)
        assert oddity.name in ("an empty object", "twice")
    except InputError as error:
        check_sentence(error)


@BY_NAME
def test_settings_of_an_arm(tmp_path, oddity):
    (tmp_path / SETTINGS_FILE).write_bytes(oddity.spoil({"steps": 4}))
    try:
        found = read_settings(tmp_path)
    except InputError as error:
        assert not oddity.taken
        check_sentence(error)
    else:
        assert found == ({"steps": 4} if oddity.taken else json.loads(oddity.spoil({})) if found is not None else None)
