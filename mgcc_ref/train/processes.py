"""Several processes that train together on one machine, such as one for each core or GPU.

On two cores with AVX2, two processes did 0.44 steps of 64 examples a second of the grounder, beside other work;
one process with two threads did 0.64 of 32. A step's matching and its small layers do not use a second thread.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

import torch
from accelerate import PartialState
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def is_one_of_several() -> bool:
    """Whether a launcher, ours or `accelerate launch`, has started this process."""
    return "LOCAL_RANK" in os.environ


def train_in(count: int, arguments: Sequence[str]) -> int:
    """Run the trainer's command with `arguments` in `count` processes; the exit code of the first that failed, or 0.

    Each has one thread unless OMP_NUM_THREADS says otherwise.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # a process says itself why it ends
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=uuid.uuid4().hex, max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="spawn",
    )  # fmt: skip
    try:
        elastic_launch(config, _work)(list(arguments))
    except ChildFailedError as error:
        return error.get_first_failure()[1].exitcode
    except SignalException as error:
        if error.sigval is signal.SIGINT:
            raise KeyboardInterrupt from error
        return 128 + error.sigval
    return 0


def _work(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))  # the first process says it, once
    PartialState(cpu=not torch.cuda.is_available())  # the first one decides: without `cpu`, each process would be alone
    from mgcc_ref.train.__main__ import main

    if code := main(arguments):
        raise SystemExit(code)
