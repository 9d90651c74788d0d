"""Every name that an exporter writes and the runtime reads, declared once: bundle files, the cache, engines, targets.

The fields of a bundle's JSON files have their one place too, beside the dataclass that reads and writes them:
`bundle/manifest.py`, `measure/golden.py`, `denoise.py` (schedule), `story.py` (parts) and `engines/tensorrt/record.py`.
"""

from __future__ import annotations

from typing import Final

# Files of a bundle, by their path inside.
MANIFEST: Final = "manifest.json"
TOKENIZER: Final = "tokenizer.json"
PHRASE_TOKENIZER: Final = "phrase_tokenizer.json"  # of bundles with a phrase encoder
EMBEDDINGS: Final = "embed_tokens.npy"
SCHEDULE: Final = "schedule.json"
LABELS: Final = "labels.json"  # of bundles with a label list, as the next one
LABEL_EMBEDDINGS: Final = "label_embeddings.npy"
DRAW_DECISION: Final = "draw_decision.npy"  # of bundles with a decision to draw of their own
LAYOUT_EXAMPLES: Final = "layout_examples.json"  # of bundles whose language model writes layouts, as the next one
LAYOUT_MASKS: Final = "layout_masks.npz"
PLAN: Final = "build_plan.json"  # of bundles whose engines are built on the device
GOLDEN: Final = "golden/"
GOLDEN_REQUEST: Final = "golden/request.json"
GOLDEN_REQUEST_ARRAYS: Final = "golden/request.npz"
GOLDEN_LAYOUT: Final = "golden/layout.json"

#: What every bundle has besides its manifest and its graphs.
REQUIRED_FILES: Final = frozenset({TOKENIZER, EMBEDDINGS, SCHEDULE})

#: What may be edited in a finished bundle: of these a manifest says that they are there, not what they hold.
EDITABLE_FILES: Final = frozenset({LAYOUT_EXAMPLES})

#: What a manifest's requirements call this package; all others go by the name of their distribution.
RUNTIME: Final = "runtime"

GRAPH_SUFFIX: Final = ".onnx"
ENGINE_SUFFIX: Final = ".engine"
WEIGHTS_SUFFIX: Final = ".onnx.data"  # of the file that holds the weights of the graph beside it


def golden_file(stage: str) -> str:
    """Golden data of a stage."""
    return f"{GOLDEN}{stage}.npz"


def golden_picture(number: int) -> str:
    """The pictures of the golden request, from 0."""
    return f"{GOLDEN}image-{number}.png"


def graph_file(stage: str) -> str:
    """The ONNX graph of a stage."""
    return f"{stage}{GRAPH_SUFFIX}"


def engine_file(stage: str) -> str:
    """The TensorRT engine of a stage."""
    return f"{stage}{ENGINE_SUFFIX}"


#: A graph's weights above this lie in a file beside it, which engines map; what lies in the graph they parse and copy
#: first. The story's language model (140 MB in dynamic int8) opened in 0.3 s instead of 1.1, with 40 MB less.
#: (Protocol buffers end at 2 GB.)
EXTERNAL_DATA_BYTES: Final = 64_000_000


def weights_file(graph: str) -> str:
    """The file beside a graph's that holds its weights, where they are not in the graph."""
    return f"{graph}.data"


def record_file(engine: str) -> str:
    """The file beside an engine's that says what it was built for."""
    return f"{engine}.json"


# Of the language model's cache, as input and as output; what follows is the layer and "key" or "value".
PAST_PREFIX: Final = "past_key_values."
PRESENT_PREFIX: Final = "present."
CACHE_PREFIXES: Final = (PAST_PREFIX, PRESENT_PREFIX)


class EngineName:
    """What runs a graph, as a manifest says it."""

    HOST: Final = "host"  # numpy
    ONNXRUNTIME: Final = "onnxruntime"
    ONNXRUNTIME_GPU: Final = "onnxruntime_gpu"
    OPENVINO: Final = "openvino"
    OPENVINO_BF16: Final = "openvino_bf16"  # what is not in integers is computed in bfloat16
    TENSORRT: Final = "tensorrt"
    TENSORRT_RTX: Final = "tensorrt_rtx"


class TargetName:
    """What a bundle was built for, as a manifest says it."""

    CPU: Final = "cpu"
    RTX: Final = "rtx"
    JETSON: Final = "jetson"
    TENSORRT: Final = "tensorrt"
    ORT_GPU: Final = "ort-gpu"
