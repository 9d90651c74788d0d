"""One replica: `mgcc serve` without its socket, which Ray's proxies have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from starlette.applications import Starlette

from mgcc_kiosk.app import make_app
from mgcc_kiosk.cli import filters_of, settings_of
from mgcc_kiosk.drawing.filters import Filters
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.on_ray.options import parser_of
from mgcc_kiosk.settings import Limits
from mgcc_runtime.pipeline import Pipeline

_CLOSING_S = 3.0  # that open connections have once the running job has ended


class Replica:
    """What Ray asks of it beside requests: whether it is well. One whose worker hangs is started anew."""

    kiosk: ClassVar[Kiosk | None] = None  # of this process

    def check_health(self) -> None:
        """RuntimeError where it is not."""
        if Replica.kiosk is not None and not Replica.kiosk.ready:
            raise RuntimeError("the worker has given no sign for too long")


@dataclass(frozen=True)
class Share:
    """How many replicas there are, and what Ray counts for each."""

    replicas: int
    cpus: float
    gpus: float


def application(bundle: Path, share: Share, limits: Limits, arguments: tuple[str, ...]) -> Any:
    """As Ray runs it. A replica reads the same command line: filters and keys of a machine are read there."""
    deployment = serve.deployment(
        serve.ingress(_builder(bundle.absolute(), arguments))(Replica),
        name="mgcc", num_replicas=share.replicas, max_ongoing_requests=int(limits.connections),
        ray_actor_options={"num_cpus": share.cpus, "num_gpus": share.gpus},
        request_router_config=RequestRouterConfig(request_router_class=ConsistentHashRouter),
        graceful_shutdown_timeout_s=limits.drain_s + _CLOSING_S, health_check_period_s=5.0,
    )  # fmt: skip
    return deployment.bind()


def _builder(bundle: Path, arguments: Sequence[str]) -> Callable[[], Starlette]:
    def build() -> Starlette:
        options = parser_of().parse_args(arguments)
        pipeline = Pipeline.load(bundle, threads=options.threads)
        Replica.kiosk = Kiosk(pipeline, settings_of(options), Filters(filters_of(options)))
        return make_app(Replica.kiosk)

    return build
