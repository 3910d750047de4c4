"""What files hold beside weights of 8 bits: the scale of each, and what tells that there are some. Imports no torch."""

SCALES = (".scale_weight", ".weight_scale")
"""How names end of what the numbers of a weight are multiplied by."""
_BESIDE = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant")
_MARK = "scaled_fp8"


def weight_of(scale: str) -> str:
    """The name of the weight that a scale is for."""
    return f"{scale.rpartition('.')[0]}.weight"


def is_beside_weights(name: str) -> bool:
    """Whether a tensor is no weight of a network, but a scale, also of what a layer is given, or tells of some."""
    return name.endswith(_BESIDE) or name == _MARK
