"""Which number format each network runs in, and why. Imports torch only to ask what the machine can do."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

PrecisionName = Literal["fp32", "bf16", "fp16"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
Eighth = Literal["fp8_e4m3fn", "fp8_e5m2"]
"""Formats of numbers of 8 bits."""

SMALL_NETWORK = 50_000_000
"""Parameters below which `auto` keeps a network in fp32 on a CPU: it is fast anyway, and exact.

Measured on one core with AVX512-BF16, batch 2, time in fp32 over time in channels-last bf16: 6 M parameters 1.1 at
16x16 latents, 1.2 at 24x24, 1.7 at 32x32 (53 ms a step); 24 M at 64x64 1.1; 148 M at 64x64 1.5.
"""

LARGE_TEXT_ENCODER = 1_000_000_000
"""Parameters from which on a text encoder computes in bf16: T5-XXL has 4.8 B, CLIP's largest 0.7 B."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How one network's numbers are kept, and the reason, for the log."""

    dtype: PrecisionName
    channels_last: bool
    reason: str
    as_filed: bool = False
    """Whether weights of 16 bits or fewer stay as their file has them, and are turned into `dtype` when used."""
    bf16_convolutions: bool = False
    """Whether convolutions of float32 multiply in bf16."""
    rounded_to: Eighth | None = None
    """What weights are rounded to and stay in, to be turned into `dtype` when used."""

    def __str__(self) -> str:
        convolutions = " with bf16 convolutions" if self.bf16_convolutions else ""
        rounded = f" with weights in {self.rounded_to}" if self.rounded_to else ""
        return f"{self.dtype}{convolutions}{rounded}{', channels-last' if self.channels_last else ''} ({self.reason})"


@dataclass(frozen=True, slots=True)
class PrecisionPolicy:
    """`auto`, or the format that the user asked for, on one device.

    Networks of convolutions are channels-last in every format: in fp32, too, that took 13 % off a step of a U-Net (6 M
    parameters, 16x16 latents, one core) and 20 % off decoding.
    """

    choice: PrecisionChoice = "auto"
    device: str = "cpu"

    def unet(self, parameters: int) -> Precision:
        if self.choice != "auto":
            return Precision(self.choice, True, "asked for with --precision")
        if self.device != "cpu":
            return Precision("fp16", True, f"the device is {self.device}")
        if parameters < SMALL_NETWORK:
            return Precision("fp32", True, f"{parameters / 1e6:.1f} M parameters are fast without rounding to bf16")
        if cpu_has_bf16():
            return Precision("bf16", True, "this CPU has bf16 instructions")
        return Precision("fp32", True, "this CPU has no bf16 instructions")

    def transformer(self, parameters: int) -> Precision:
        """Of a diffusion transformer, whose activations grow beyond what fp16 holds."""
        if self.choice == "auto" and self.device != "cpu" and gpu_has_bf16():
            return Precision("bf16", False, f"the device is {self.device}, and fp16 may overflow in transformers")
        return replace(self.unet(parameters), channels_last=False)

    def vae(self, parameters: int) -> Precision:
        if self.device == "cpu":
            # Decoding 128 pixels took 0.25 s instead of 0.47 (Stable Diffusion's, two cores). The embedded model's
            # pictures, of fewer channels, were 0.16 of 255 levels from those in fp32 (rms); all in bf16: 0.36.
            fast = self.choice in ("auto", "bf16") and parameters >= SMALL_NETWORK and cpu_has_bf16()
            return Precision("fp32", True, "autoencoders lose detail in fewer bits", True, bf16_convolutions=fast)
        if self.choice in ("auto", "bf16") and gpu_has_bf16():
            return Precision("bf16", True, f"the device is {self.device}, and fp16 may overflow in autoencoders")
        return Precision("fp32", True, "fp16 may overflow in autoencoders")

    def text_encoder(self, parameters: int) -> Precision:
        if parameters >= LARGE_TEXT_ENCODER and self.choice in ("auto", "bf16"):
            size = f"{parameters / 1e9:.1f} B parameters"
            if self.device == "cpu" and cpu_has_bf16():
                return Precision("bf16", False, f"{size}, and this CPU has bf16 instructions", as_filed=True)
            if self.device != "cpu" and gpu_has_bf16():
                return Precision("bf16", False, f"{size}, and the device is {self.device}")
        return Precision("fp32", False, "a prompt is encoded once, and exactly", as_filed=True)


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 numbers itself (AVX512-BF16, AMX or Arm's BF16)."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
        return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
    except OSError:
        pass
    import torch

    asked = cast("Callable[[], bool] | None", getattr(torch.cpu, "_is_avx512_bf16_supported", None))
    return bool(asked and asked())


@cache
def gpu_has_bf16() -> bool:
    import torch

    return torch.cuda.is_available() and bool(cast(Any, torch.cuda).is_bf16_supported())
