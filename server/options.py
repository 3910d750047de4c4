"""Choices that several commands offer."""

from functools import partial
from typing import TYPE_CHECKING

import click

from server.quantities import SIZE

if TYPE_CHECKING:
    from nodes.precision import PrecisionChoice

PRECISIONS: "tuple[PrecisionChoice, ...]" = ("auto", "fp32", "bf16", "fp16")


def _allow(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    from nodes import pickles

    context.call_on_close(partial(pickles.allow, pickles.allowed()))
    pickles.allow(asked or pickles.allowed())


allow_pickle = click.option(
    "--allow-pickle",
    is_flag=True,
    expose_value=False,
    callback=_allow,
    help="Read models in pickles too (.ckpt, .pt, .pth, .bin): numbers alone, and nothing in them is run.",
)

prepared_bytes = click.option(
    "--prepared-bytes",
    type=SIZE,
    help="How much networks may take on the disk that are kept as this machine computes with them, to be there at once "
    "the next time. Default 20GiB; 0 keeps none.",
)
