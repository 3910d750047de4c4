"""The model pool: materialises the weights that references stand for, once, within a budget of bytes.

Importing this module imports no torch; the first network that is asked for does.
"""

import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, cast

from graph.values import Service, Shortage
from nodes.clip_tokenizer import ClipTokenizer, load_tokenizer
from nodes.memory import budget, room, share_memory_between_threads
from nodes.precision import Precision, PrecisionChoice, PrecisionPolicy
from nodes.prepared_networks import PreparedNetworks
from nodes.values import Clip, Model, Vae, Weights

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor
    from torch import device as Device
    from torch.nn import Module

    from nodes.added_inputs import Told
    from nodes.control_networks import Residuals
    from nodes.mapped_memory import Span
    from nodes.materialise import KnownPart

log = logging.getLogger("latentloom.models")

Key = tuple[str, str, str]
Load = Callable[["Device"], "Module"]


class DenoiseNetwork(Protocol):
    """A network's raw prediction in float32, on the device of the pool."""

    def __call__(
        self,
        x: "Float[Tensor, 'batch channels height width']",
        timestep: "Float[Tensor, ' batch']",
        context: "Float[Tensor, 'batch tokens width']",
        told: "Told | None" = None,
        residuals: "Residuals | None" = None,
        /,
    ) -> "Float[Tensor, 'batch channels height width']": ...


@dataclass(eq=False)
class _Entry:
    name: str
    lock: Lock = field(default_factory=Lock)
    module: "Module | None" = None
    nbytes: int = 0
    mapped: "tuple[Span, ...]" = ()
    """Memory that can be given back when it is not used for a while, and which nobody writes to."""
    touched: bool = False


class ModelPool(Service):
    """Networks in memory, by identity, part and precision; the least recently used go first when room is needed.

    Safe to use from several threads. A network that is dropped while somebody computes with it lives on until then.
    """

    def __init__(
        self,
        precision: PrecisionChoice = "auto",
        device: str = "auto",
        max_bytes: int | None = None,
        prepared: PreparedNetworks | None = None,
    ) -> None:
        # Large pages, which torch asks for only when told so before its first tensor: a step of a U-Net of 860 M
        # parameters took 9 % less time with them (128 pixels, bf16, two cores).
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        share_memory_between_threads()
        self.precision: PrecisionChoice = precision
        self._device_name = device
        # How its networks compute, as far as it was told; what `auto` makes of it depends on the machine alone.
        self.identity = precision if device == "auto" else f"{precision} on {device}"
        self._max_bytes = max_bytes
        self.prepared = prepared
        self._lock = Lock()
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._parameters: dict[tuple[str, str], int] = {}
        self._said: set[str] = set()

    @cached_property
    def device(self) -> "Device":
        """Where the networks are. Keep a sampler's tensors here, so that no step waits for a copy."""
        import torch

        name = self._device_name
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)

    @cached_property
    def policy(self) -> PrecisionPolicy:
        return PrecisionPolicy(self.precision, self.device.type)

    @cached_property
    def max_bytes(self) -> int:
        """The budget: what was stated, or half the machine's memory, or four fifths of the GPU's."""
        return budget(self.device) if self._max_bytes is None else self._max_bytes

    # Networks

    def unet(self, model: Model) -> "Module":
        """The denoising network, ready to run in the precision of `unet_precision`."""
        precision = self.unet_precision(model)

        def load(device: "Device") -> "Module":
            from nodes.materialise import load_unet

            return load_unet(model.weights, precision, device, self.prepared)

        return self._get(model.weights, "U-Net", precision, load, "unet")

    def text_encoder(self, clip: Clip) -> "Module":
        is_t5 = clip.tower == "T5"
        precision = self.policy.text_encoder(self._parameter_count(clip.weights, "text_encoder") if is_t5 else 0)

        def load(device: "Device") -> "Module":
            if is_t5:
                from nodes.t5_encoder import load_t5

                return load_t5(clip.weights, precision, device)
            from nodes.materialise import load_text_encoder

            return load_text_encoder(clip.weights, precision, device, clip.projected)

        part = "text encoder with projection" if clip.projected else "text encoder"
        return self._get(clip.weights, part, precision, load, "text_encoder")

    def vae(self, vae: Vae) -> "Module":
        precision = self.vae_precision(vae)

        def load(device: "Device") -> "Module":
            from nodes.materialise import load_vae

            return load_vae(vae.weights, precision, device)

        return self._get(vae.weights, "VAE", precision, load, "vae")

    def network(self, weights: Weights, part: str, precision: Precision, load: Load) -> "Module":
        """A network of any other kind; `load` makes it, on a device, the first time. `part` is what it is called."""
        return self._get(weights, part, precision, load)

    def tokenizer(self, clip: Clip) -> ClipTokenizer:
        return load_tokenizer(clip.tokenizer)

    def unet_precision(self, model: Model) -> Precision:
        is_unet = model.architecture == "U-Net"
        if model.precision is not None:
            precision = Precision(model.precision, is_unet, "asked for by ModelComputeDtype")
        else:
            parameters = self._parameter_count(model.weights, "unet")
            precision = self.policy.unet(parameters) if is_unet else self.policy.transformer(parameters)
        return replace(precision, rounded_to=model.rounded_to)

    def vae_precision(self, vae: Vae) -> Precision:
        return self.policy.vae(self._parameter_count(vae.weights, "vae"))

    # Computing with them

    def denoise_network(self, model: Model) -> DenoiseNetwork:
        """The network as a function of the noisy latent (scaled as the network expects), timestep and text."""
        import torch

        from nodes.materialise import DTYPES
        from nodes.network_calls import Asked, ask
        from nodes.picture_attention import on_sides

        self._rest_text_encoders()
        module, precision, device = self.unet(model), self.unet_precision(model), self.device
        if model.network_patches:
            from nodes.grounding import gligen_layers
            from nodes.patched_network import check_architecture, patched

            check_architecture(model)
            module = patched(
                module,
                model.network_patches,
                lambda gligen: gligen_layers(self, gligen, replace(precision, rounded_to=None)),
            )
        dtype = DTYPES[precision.dtype]
        layout = torch.channels_last if precision.channels_last else torch.contiguous_format

        def predict(
            x: "Tensor",
            timestep: "Tensor",
            context: "Tensor",
            told: "Told | None" = None,
            residuals: "Residuals | None" = None,
        ) -> "Tensor":
            with torch.inference_mode(), on_sides(told and told.negative):
                latent = x.to(device=device, dtype=dtype, memory_format=layout)
                text = context.to(device=device, dtype=dtype)
                asked = Asked(latent, timestep.to(device), text, None if told is None else told.to(device), residuals)
                output = ask(model.architecture, module, asked)
                return output.to(dtype=torch.float32, memory_format=torch.contiguous_format)

        return predict

    def encode_text(
        self,
        clip: Clip,
        token_ids: "Int[Tensor, 'chunks tokens']",
        vectors: "Float[Tensor, 'words width'] | None" = None,
    ) -> "tuple[Float[Tensor, 'chunks tokens width'], Float[Tensor, 'chunks width']]":
        """Hidden states of the layer that `clip` asks for, and the pooled last state; its second encoder is not asked.

        A layer beyond the first (`layer=-20` of 12) means the last, as in ComfyUI.

        Args:
            vectors: what stands in the place of tokens with negative ids; -1 is the first of them.
        """
        import torch

        from nodes.learned_words import learned
        from nodes.materialise import text_body

        module = self.text_encoder(clip)
        with torch.no_grad(), learned(vectors):
            output = cast(Any, module)(input_ids=token_ids.to(self.device), output_hidden_states=True)
            layers = len(output.hidden_states) - 1  # the first are the embeddings
            layer = min(clip.layer + clip.left_out, -1)
            layer = layer if layer >= -layers else -1
            hidden = cast("Tensor", output.last_hidden_state if layer == -1 else output.hidden_states[layer])
            if clip.normed and layer != -1:
                hidden = cast("Tensor", text_body(module).final_layer_norm(hidden))
            elif not clip.normed:
                hidden = cast("Tensor", output.hidden_states[layer])
            pooled = output.text_embeds if clip.projected else output.pooler_output
            return hidden.float(), cast("Tensor", pooled).float()

    def text_width(self, clip: Clip) -> int:
        """How many numbers a token is for a text encoder."""
        return cast(Any, self.text_encoder(clip)).config.hidden_size

    def encode_pixels(
        self, vae: Vae, pixels: "Float[Tensor, 'batch 3 height width']"
    ) -> "Float[Tensor, 'batch channels h w']":
        """The mode of the posterior of pictures in -1…1, unscaled."""
        from nodes.autoencoding import encode_pixels

        return encode_pixels(self, vae, pixels)

    def decode_latent(
        self, vae: Vae, samples: "Float[Tensor, 'batch channels h w']"
    ) -> "Float[Tensor, 'batch 3 height width']":
        """Pictures, about -1…1 (not clipped), of unscaled latents."""
        from nodes.autoencoding import decode_latent

        return decode_latent(self, vae, samples)

    # Memory

    @property
    def resident(self) -> list[tuple[str, int]]:
        """What is in memory, least recently used first: its name and its bytes."""
        with self._lock:
            return [(entry.name, entry.nbytes) for entry in self._entries.values() if entry.module is not None]

    def free(self, bytes_needed: int | None = None) -> int:
        """Drop everything, or as much as it takes for `bytes_needed` more to fit in the budget. Returns bytes freed."""
        return self._shrink(0 if bytes_needed is None else max(0, self.max_bytes - bytes_needed), keep=None)

    def make_room(self, wanted: int, keep: str, purpose: str) -> int | None:
        """Drop networks but those of one identity, if that is what it takes for so many bytes to fit beside the rest.

        Returns:
            The bytes that are free then; None where nobody tells.
        """
        left = room(self.device)
        if left is None or wanted <= left:
            return left
        with self._lock:
            kept = next((key for key in self._entries if key[0] == keep), None)
        held = sum(nbytes for _, nbytes in self.resident)
        self._shrink(max(0, held - (wanted - left)), keep=kept, purpose=purpose)
        return room(self.device)

    def relieve(self, error: BaseException) -> Shortage | None:
        """If this is for want of memory: drop every network, and say how much was needed and what was resident."""
        import torch

        needed = _ASKED_FOR.search(str(error))
        wanted = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not wanted and not (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
            return None
        resident = ", ".join(f"{name} ({nbytes / 1e6:,.0f} MB)" for name, nbytes in self.resident)
        return Shortage(int(needed[1]) if needed else None, resident or "no network", self.free())

    def _get(
        self, weights: Weights, part: str, precision: Precision, load: Load, known: "KnownPart | None" = None
    ) -> "Module":
        key = (weights.identity, part, f"{precision.dtype} {precision.rounded_to or ''}")
        with self._lock:
            entry = self._entries.setdefault(key, _Entry(f"{weights.name} {part}"))
            self._entries.move_to_end(key)
        with entry.lock:
            if entry.module is None:
                expected = self._expected(weights, precision, known)
                # Before there is another one, not afterwards: both at once may be too much.
                self._shrink(max(0, self.max_bytes - expected), keep=key, purpose=entry.name)
                try:
                    entry.module = self._load(entry, precision, load, expected)
                except BaseException:
                    with self._lock:
                        self._entries.pop(key, None)
                    raise
                self._shrink(self.max_bytes, keep=key, purpose=entry.name)
                if known == "text_encoder":
                    from nodes.mapped_memory import mapped_spans

                    entry.mapped = mapped_spans(entry.module.parameters())
            entry.touched = True
            return entry.module

    def _rest_text_encoders(self) -> None:
        """Give back the memory that they are mapped in: prompts are encoded once, and then come many steps."""
        with self._lock:
            # As long as a module is held, so is what it is mapped in.
            resting = [(entry.module, entry.mapped) for entry in self._entries.values() if entry.touched]
            for entry in self._entries.values():
                entry.touched = False
        for _, mapped in resting:
            if mapped:
                from nodes.mapped_memory import give_back

                give_back(mapped)

    def _parameter_count(self, weights: Weights, part: "KnownPart") -> int:
        key = weights.identity, part
        if key not in self._parameters:
            from nodes.materialise import STEMS, parameter_count

            self._parameters[key] = parameter_count(weights, STEMS[part])
        return self._parameters[key]

    def _expected(self, weights: Weights, precision: Precision, known: "KnownPart | None") -> int:
        """How many bytes a network will be; 0 for kinds of which that is not known before."""
        if known is None:
            return 0
        from nodes.materialise import expected_bytes

        return expected_bytes(weights, known, precision)

    def _load(self, entry: _Entry, precision: Precision, load: Load, expected: int) -> "Module":
        start = time.perf_counter()
        module = load(self.device)
        from nodes.materialise import byte_count

        entry.nbytes = byte_count(module)
        choice = f"{entry.name} runs in {precision}"
        if choice not in self._said:
            self._said.add(choice)
            log.info("%s", choice)
        estimate = f" ({expected / 1e6:.1f} were expected)" if expected else ""
        seconds = time.perf_counter() - start
        log.info("loaded %s: %.1f MB%s in %.2f s", entry.name, entry.nbytes / 1e6, estimate, seconds)
        return module

    def _shrink(self, budget: int, keep: Key | None, purpose: str = "") -> int:
        """Drop the least recently used until the rest fits; the one to keep stays even if it alone is too large."""
        dropped: list[_Entry] = []
        with self._lock:
            total = sum(entry.nbytes for entry in self._entries.values())
            for key, entry in list(self._entries.items()):
                if total <= budget:
                    break
                if entry.module is not None and key != keep:
                    dropped.append(self._entries.pop(key))
                    total -= entry.nbytes
        for entry in dropped:
            log.info("dropped %s: %.1f MB%s", entry.name, entry.nbytes / 1e6, f", for {purpose}" if purpose else "")
        if dropped and self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
        return sum(entry.nbytes for entry in dropped)


_NO_MEMORY = re.compile(r"can't allocate memory|out of memory", re.IGNORECASE)
_ASKED_FOR = re.compile(r"you tried to allocate (\d+) bytes", re.IGNORECASE)
