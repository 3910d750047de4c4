"""What the configurations of a checkpoint in diffusers layout say, as far as it matters. Imports no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from nodes.latent_scale import EDM_SIGMA_DATA, PLAYGROUND_LEVELS
from nodes.values import ContinuousLevels, Prediction, Scale


class Configuration(BaseModel):
    """One JSON file of a model. Unknown keys are ignored, as newer versions add some."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class PipelineIndex(Configuration):
    class_name: str = Field(alias="_class_name")
    unet: tuple[str | None, str | None] = (None, None)
    vae: tuple[str | None, str | None] = (None, None)
    text_encoder: tuple[str | None, str | None] = (None, None)
    text_encoder_2: tuple[str | None, str | None] = (None, None)
    text_encoder_3: tuple[str | None, str | None] = (None, None)
    tokenizer: tuple[str | None, str | None] = (None, None)
    tokenizer_2: tuple[str | None, str | None] = (None, None)
    tokenizer_3: tuple[str | None, str | None] = (None, None)
    transformer: tuple[str | None, str | None] = (None, None)
    scheduler: tuple[str | None, str | None] = (None, None)

    @property
    def encoders(self) -> list[tuple[str, str]]:
        """The folders of text encoders, each with that of its tokenizer."""
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        known: dict[str, tuple[str | None, str | None]] = {name: getattr(self, name) for name in names}
        return [(part, part.replace("text_encoder", "tokenizer")) for part, (_, kind) in known.items() if kind]


class UnetConfiguration(Configuration):
    in_channels: int = 4
    cross_attention_dim: int | list[int] = 1280
    addition_embed_type: str | None = None
    projection_class_embeddings_input_dim: int | None = None
    class_embed_type: str | None = None
    encoder_hid_dim: int | None = None

    @property
    def extras(self) -> list[str]:
        """Inputs beside the latent and the text that a network of another family would expect."""
        names = ("addition_embed_type", "class_embed_type", "encoder_hid_dim")
        return [name for name in names if getattr(self, name) not in (None, "text_time")]


class TransformerConfiguration(Configuration):
    in_channels: int = 16
    joint_attention_dim: int = 4096
    pooled_projection_dim: int = 2048
    guidance_embeds: bool = False


class TextConfiguration(Configuration):
    hidden_size: int = Field(default=512, validation_alias=AliasChoices("hidden_size", "d_model"))
    projection_dim: int = 512
    num_hidden_layers: int = 12
    model_type: str = "clip_text_model"
    hidden_act: str = "quick_gelu"


class VaeConfiguration(Configuration):
    class_name: str = Field(default="AutoencoderKL", alias="_class_name")
    block_out_channels: list[int] = Field(default=[64], min_length=1)
    latent_channels: int = 4
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[Annotated[float, Field(gt=0)], ...] | None = None

    @model_validator(mode="after")
    def _as_many_as_channels(self) -> Self:
        for numbers in (self.latents_mean, self.latents_std):
            if numbers is not None and len(numbers) != self.latent_channels:
                raise ValueError(f"{len(numbers)} statistics for {self.latent_channels} latent channels")
        return self

    @property
    def scale(self) -> Scale:
        deviations = self.latents_std
        return self.scaling_factor if deviations is None else tuple(self.scaling_factor / each for each in deviations)

    @property
    def shift(self) -> Scale:
        return self.latents_mean or self.shift_factor or 0.0


class PreviewConfiguration(Configuration):
    weight: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]


class FlowConfiguration(Configuration):
    """That of a scheduler for rectified flows. With dynamic shifting the shift grows with the picture."""

    class_name: Literal["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"] = Field(
        alias="_class_name"
    )
    shift: float = Field(default=1.0, gt=0)
    use_dynamic_shifting: bool = False


class SchedulerConfiguration(Configuration):
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    beta_start: float = Field(default=0.0001, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    beta_schedule: Literal["scaled_linear", "linear"] = "linear"
    num_train_timesteps: int = Field(default=1000, ge=2)
    rescale_betas_zero_snr: bool = False
    class_name: str = Field(default="", alias="_class_name")
    sigma_min: float | None = Field(default=None, gt=0)
    sigma_max: float | None = Field(default=None, gt=0)
    sigma_data: float = Field(default=EDM_SIGMA_DATA, gt=0)
    trained_betas: None = None

    @field_validator("trained_betas", mode="before")
    @classmethod
    def _no_table(cls, value: Any) -> None:
        if value is not None:
            raise ValueError("a table of trained betas is not supported")

    @model_validator(mode="after")
    def _lowest_below_highest(self) -> Self:
        levels = self.levels
        if levels is not None and not levels.lowest < levels.highest:
            raise ValueError(f"noise levels from {levels.lowest:g} to {levels.highest:g}")
        return self

    @property
    def levels(self) -> ContinuousLevels | None:
        """Those of Karras et al. (2022), if the network was trained on them."""
        if not self.class_name.startswith("EDM"):
            return None
        lowest, highest = PLAYGROUND_LEVELS  # which are the paper's
        return ContinuousLevels(self.sigma_min or lowest, self.sigma_max or highest, self.sigma_data)

    @property
    def prediction(self) -> Prediction:
        return "edm" if self.levels and self.prediction_type == "epsilon" else self.prediction_type
