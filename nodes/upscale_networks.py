"""Networks that enlarge pictures: ESRGAN's (RRDB) and Real-ESRGAN's compact one, told by the names of their weights.

Wang et al. (2018), "ESRGAN", and (2021), "Real-ESRGAN". spandrel knows many more, but needs torchvision, which has
to be built for the very torch that is installed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Planes = Float[Tensor, "batch channels height width"]

RESIDUAL_SHARE = 0.2
SLOPE = 0.2


class Shaped(Protocol):
    """What a name in a file stands for, as far as it matters here."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Rrdb:
    """ESRGAN's architecture: `blocks` blocks of width `features`, each growing by `growth` channels a layer.

    `folded` pixels of a side become channels first (Real-ESRGAN below four times), `doublings` times the size doubles.
    """

    features: int
    growth: int
    blocks: int
    folded: int
    doublings: int

    @property
    def scale(self) -> int:
        return 2**self.doublings // self.folded

    def build(self) -> nn.Module:
        return RrdbNetwork(self)


@dataclass(frozen=True, slots=True)
class Compact:
    """Real-ESRGAN's small architecture: `layers` convolutions between the first and the last, at the low resolution."""

    features: int
    layers: int
    scale: int

    def build(self) -> nn.Module:
        return CompactNetwork(self)


Architecture = Rrdb | Compact


class _DenseBlock(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        outs = (growth, growth, growth, growth, features)
        for index, out in enumerate(outs):
            self.add_module(f"conv{index + 1}", nn.Conv2d(features + index * growth, out, 3, padding=1))

    def forward(self, x: Planes) -> Planes:
        seen = x
        *growing, last = self.children()
        for layer in growing:
            seen = torch.cat((seen, F.leaky_relu(layer(seen), SLOPE)), dim=1)
        return x + RESIDUAL_SHARE * last(seen)


class _Block(nn.Module):
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for index in range(3):
            self.add_module(f"rdb{index + 1}", _DenseBlock(features, growth))

    def forward(self, x: Planes) -> Planes:
        inner = x
        for dense in self.children():
            inner = dense(inner)
        return x + RESIDUAL_SHARE * inner


class RrdbNetwork(nn.Module):
    """Residual-in-residual dense blocks, and then twice the size again and again. RGB 0…1 in and, about, out."""

    def __init__(self, architecture: Rrdb) -> None:
        super().__init__()
        features, self.folded = architecture.features, architecture.folded
        self.conv_first = nn.Conv2d(3 * self.folded**2, features, 3, padding=1)
        self.body = nn.Sequential(*(_Block(features, architecture.growth) for _ in range(architecture.blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        self.ups = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(architecture.doublings))
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x: Planes) -> Planes:
        height, width = x.shape[2:]
        rest = (-width % self.folded, -height % self.folded)
        if any(rest):
            x = F.pad(x, (0, rest[0], 0, rest[1]), mode="replicate")
        features = self.conv_first(F.pixel_unshuffle(x, self.folded))
        features = features + self.conv_body(self.body(features))
        for up in self.ups:
            features = F.leaky_relu(up(F.interpolate(features, scale_factor=2.0)), SLOPE)
        enlarged = self.conv_last(F.leaky_relu(self.conv_hr(features), SLOPE))
        scale = 2 ** len(self.ups) // self.folded
        return enlarged[..., : height * scale, : width * scale]


class CompactNetwork(nn.Module):
    """Convolutions at the low resolution, unfolded at the end and added to the picture as it is."""

    def __init__(self, architecture: Compact) -> None:
        super().__init__()
        features, self.scale = architecture.features, architecture.scale
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(architecture.layers):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers, nn.Conv2d(features, 3 * self.scale**2, 3, padding=1))

    def forward(self, x: Planes) -> Planes:
        return F.pixel_shuffle(self.body(x), self.scale) + F.interpolate(x, scale_factor=float(self.scale))


def identify(weights: Mapping[str, Shaped]) -> Architecture | None:
    """What a file of these weights is, by their names and shapes alone; None for anything else."""
    names = renamed(weights)
    shapes = {new: tuple(weights[old].shape) for old, new in names.items()}
    found = _rrdb(shapes) or _compact(shapes)
    if found is None:
        return None
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in found.build().state_dict().items()}
    return found if expected == shapes else None


def _rrdb(shapes: Mapping[str, tuple[int, ...]]) -> Rrdb | None:
    first, dense = shapes.get("conv_first.weight"), shapes.get("body.0.rdb1.conv1.weight")
    blocks = {int(name.split(".")[1]) for name in shapes if re.fullmatch(r"body\.\d+\.rdb1\.conv1\.weight", name)}
    doublings = sum(re.fullmatch(r"ups\.\d+\.weight", name) is not None for name in shapes)
    if first is None or dense is None or len(first) != 4 or len(dense) != 4 or first[1] < 3:
        return None
    folded = isqrt(first[1] // 3)
    return Rrdb(first[0], dense[0], len(blocks), folded, doublings) if 2**doublings >= folded else None


def _compact(shapes: Mapping[str, tuple[int, ...]]) -> Compact | None:
    first = shapes.get("body.0.weight")
    places = [int(name.split(".")[1]) for name in shapes if re.fullmatch(r"body\.\d+\.weight", name)]
    if first is None or len(first) != 4 or max(places) < 4 or max(places) % 2:
        return None
    last = shapes[f"body.{max(places)}.weight"]
    return Compact(first[0], max(places) // 2 - 1, isqrt(last[0] // 3))


WRAPPINGS = ("params_ema.", "params.", "module.", "netG.")
ORIGINAL = (
    (r"RRDB_trunk\.", "body."),
    (r"RDB(\d)\.", r"rdb\1."),
    (r"trunk_conv\.", "conv_body."),
    (r"HRconv\.", "conv_hr."),
)


def renamed(weights: Mapping[str, object]) -> dict[str, str]:
    """From the names in a file to those in the network: of Real-ESRGAN, of ESRGAN, and of ESRGAN's first release."""
    bare = {name: _unwrapped(name) for name in weights}
    if any(name.startswith("model.1.sub.") for name in bare.values()):
        return _of_first_release(bare)
    for pattern, replacement in ORIGINAL:
        bare = {old: re.sub(pattern, replacement, new) for old, new in bare.items()}
    return {old: re.sub(r"^(?:conv_up|upconv)(\d)\.", _counted, new) for old, new in bare.items()}


def _unwrapped(name: str) -> str:
    for wrapping in WRAPPINGS:
        name = name.removeprefix(wrapping)
    return name


def _counted(up: re.Match[str]) -> str:
    return f"ups.{int(up[1]) - 1}."


def _of_first_release(names: Mapping[str, str]) -> dict[str, str]:
    """It numbered its layers: the first, the blocks, one for each doubling, and two more."""
    blocks = [int(match[1]) for name in names.values() if (match := re.match(r"model\.1\.sub\.(\d+)\.RDB", name))]
    places = sorted(
        {int(match[1]) for name in names.values() if (match := re.fullmatch(r"model\.(\d+)\.weight", name))}
    )
    trunk = f"model.1.sub.{max(blocks, default=-1) + 1}."
    _, *ups, hr, last = [f"model.{place}." for place in places] if len(places) >= 3 else ["", "", "", ""]
    roles = {"model.0.": "conv_first.", trunk: "conv_body.", hr: "conv_hr.", last: "conv_last."}
    roles |= {up: f"ups.{index}." for index, up in enumerate(ups)}
    found: dict[str, str] = {}
    for old, name in names.items():
        start = next((role for role in roles if role and name.startswith(role)), None)
        inner = re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(\w+)", name)
        if start is not None:
            found[old] = roles[start] + name.removeprefix(start)
        elif inner:
            found[old] = f"body.{inner[1]}.rdb{inner[2]}.conv{inner[3]}.{inner[4]}"
        else:
            found[old] = name
    return found
