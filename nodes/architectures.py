"""Which kinds of networks a change is for: U-Nets, or diffusion transformers."""

from nodes.values import Model


class WrongArchitecture(ValueError):
    """What changes one kind of network was given to another kind."""

    def __init__(self, model: Model, what: str) -> None:
        transformer = model.architecture != "U-Net"
        wanted, found = ("U-Nets", f"a diffusion transformer ({model.architecture})")
        if not transformer:
            wanted, found = "diffusion transformers (SD 3 and Flux)", "a U-Net"
        super().__init__(
            f"{what} is for {wanted}, but the network of {model.weights.name!r} is {found}; take {what} out"
        )
        self.model = model


def for_unets(model: Model, what: str) -> None:
    """Raise WrongArchitecture unless the model's network is a U-Net."""
    if model.architecture != "U-Net":
        raise WrongArchitecture(model, what)


def for_transformers(model: Model, what: str) -> None:
    """Raise WrongArchitecture unless the model's network is a diffusion transformer."""
    if model.architecture == "U-Net":
        raise WrongArchitecture(model, what)
