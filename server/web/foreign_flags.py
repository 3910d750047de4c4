"""Flags of ComfyUI's command line that mean nothing here, so that a command written for it starts this server too."""

from typing import Literal, NamedTuple


class Flag(NamedTuple):
    """A flag, and how many values follow it: none, one, one that may be left out, or any number of them."""

    name: str
    values: Literal["none", "one", "maybe", "many"] = "none"


# One string each: a list would be three screens long.
_NONE = """
auto-launch disable-auto-launch cuda-malloc disable-cuda-malloc force-fp32 force-fp16 fp32-unet fp64-unet bf16-unet
fp16-unet fp8_e4m3fn-unet fp8_e5m2-unet fp8_e8m0fnu-unet fp16-vae fp32-vae bf16-vae cpu-vae fp8_e4m3fn-text-enc
fp8_e5m2-text-enc fp16-text-enc fp32-text-enc bf16-text-enc force-channels-last disable-ipex-optimize
supports-fp8-compute cache-classic cache-none use-split-cross-attention use-quad-cross-attention
use-pytorch-cross-attention use-sage-attention use-flash-attention disable-xformers force-upcast-attention
dont-upcast-attention gpu-only highvram normalvram lowvram novram cpu async-offload force-non-blocking
disable-smart-memory deterministic mmap-torch-files disable-mmap dont-print-server quick-test-for-ci
windows-standalone-build disable-metadata disable-all-custom-nodes disable-api-nodes multi-user log-stdout
"""
_ONE = """
extra-model-paths-config cuda-device default-device oneapi-device-selector preview-method preview-size cache-lru
reserve-vram default-hashing-function front-end-version front-end-root comfy-api-base database-url
"""

FLAGS: tuple[Flag, ...] = (
    *(Flag(name) for name in _NONE.split()),
    *(Flag(name, "one") for name in _ONE.split()),
    Flag("directml", "maybe"),
    Flag("verbose", "maybe"),
    Flag("fast", "many"),
    Flag("whitelist-custom-nodes", "many"),
)
"""All of the protocol's list that `WebOptions` does not take. What `serve` takes itself, it leaves out of these."""
