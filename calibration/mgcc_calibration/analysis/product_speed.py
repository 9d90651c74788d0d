"""Which forms of 8-bit layers are exact on this CPU, in which engine, and how fast: what our graphs are chosen by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from mgcc_calibration.analysis.byte_products import (
    PAIRS,
    Form,
    Layer,
    Run,
    error_db,
    make_layer,
    on_onnxruntime,
    on_openvino,
)

#: Below it something overflowed: one code more or less, where a sum lies between two, leaves 70 dB.
EXACT_DB = 60.0
_OPENVINO = (Form.QDQ_MATMUL, Form.QDQ_CONV_INPUTS)


@dataclass(frozen=True)
class Product:
    """One form of a layer in one engine. `exact_db`: signal to noise against the same integers multiplied exactly."""

    engine: str
    form: str
    activations: str
    weights: str
    exact_db: float
    ms: float  # the quickest call, one thread

    def __str__(self) -> str:
        exact = "exact" if self.exact_db >= EXACT_DB else f"{self.exact_db:.0f} dB"
        pair = f"{self.activations} by {self.weights}"
        return f"{self.engine:27} {self.form:38} {pair:17} {exact:7} {self.ms:7.2f} ms"


def measure_products(rounds: int) -> Iterator[Product]:
    """Every form and pair of types, in our sessions of ONNX Runtime, in its own settings, and in OpenVINO."""
    for form, pairs in PAIRS.items():
        for activations, weights in pairs:
            layer = make_layer(form, activations, weights)
            runs = {
                "onnxruntime": on_onnxruntime(layer.model, exact=True),
                "onnxruntime, out of the box": on_onnxruntime(layer.model, exact=False),
            }
            if form in _OPENVINO:
                runs["openvino"] = on_openvino(layer.model)
            for engine, run in runs.items():
                decibels = round(error_db(layer, run(layer.feed)), 1)
                pair = str(activations), str(weights)
                yield Product(engine, form.value, *pair, decibels, _quickest_ms(layer, run, rounds))


def _quickest_ms(layer: Layer, run: Run, rounds: int) -> float:
    spent = []
    for _ in range(rounds):
        started = time.perf_counter()
        run(layer.feed)
        spent.append((time.perf_counter() - started) * 1e3)
    return round(min(spent), 3)
