"""What each release of TensorRT's ONNX parser takes: operators, opsets and element types, as data.

From the operator table that ONNX-TensorRT has for 10.3, and its changelog for what came later. What a node may not have
besides is in `parser_rules.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

Version = tuple[int, int]

#: The releases that engines are built with, the second no more: JetPack 6.1 to 7.2, and 11 on AGX Orin, Thor and cards.
OLDEST: Version = (10, 3)
BEFORE: Version = (11, 5)

LEAST_OPSET = 9
#: From a release on, the last opset. 10.3 documents 20, and reads of 21 what 4-bit weights need; what else is new there
#: are element types, and a GroupNormalization, which has a rule of its own. 10.6 and 10.11 by the ONNX that they have.
OPSETS: Mapping[Version, int] = {(10, 0): 21, (10, 6): 22, (10, 11): 23, (10, 15): 24, (11, 0): 25}

#: In every release from 10.3 on.
OPERATORS = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil
    Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace
    DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish Hardmax Identity If ImageScaler InstanceNormalization IsInf IsNaN LRN
    LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max
    MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad
    ParametricSoftplus Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round ScaledTanh Scan Scatter ScatterElements
    ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt
    Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """.split()  # noqa: SIM905 - a hundred and forty quoted names would be no table
)
#: Those that a later release brought.
LATER_OPERATORS: Mapping[str, Version] = {
    "BlackmanWindow": (10, 4), "HammingWindow": (10, 4), "HannWindow": (10, 4), "STFT": (10, 5), "Attention": (10, 14),
    "RMSNormalization": (10, 15), "RotaryEmbedding": (10, 15), "TensorScatter": (10, 15),
}  # fmt: skip

#: Element types, by ONNX's names. uint8 is for the network's own inputs and outputs.
TYPES = frozenset(("FLOAT", "FLOAT16", "BFLOAT16", "INT64", "INT32", "INT8", "INT4", "FLOAT8E4M3FN", "UINT8", "BOOL"))
LATER_TYPES: Mapping[str, Version] = {"FLOAT4E2M1": (10, 8)}


def last_opset(release: Version) -> int:
    """The last opset that a release of the parser reads."""
    return OPSETS[max(since for since in OPSETS if since <= release)]


def written(release: Version) -> str:
    """A release in words: 10.3."""
    return f"{release[0]}.{release[1]}"
