"""What `object_info` says of nodes, as far as editor documents depend on it: inputs, their widgets, outputs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from workflows.editor.shapes import a_list, an_object

NodeInfos = Mapping[str, Any]
"""`object_info`: class name → what that node takes and gives, as this or any other server of the protocol tells it."""

Control = Literal["none", "number", "list"]
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
SEEDS = ("seed", "noise_seed")
UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload", "file_upload", "upload")


@dataclass(frozen=True)
class DescribedInput:
    """One input, as an editor sees it."""

    name: str
    type: str
    required: bool
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    choices: tuple[Any, ...] = ()

    @cached_property
    def widget_type(self) -> str:
        stated = self.options.get("widgetType")
        return stated if isinstance(stated, str) else self.type

    @property
    def could_be_widget(self) -> bool:
        return self.widget_type in WIDGET_TYPES or bool(self.options.get("socketless"))

    @cached_property
    def is_widget(self) -> bool:
        """Whether its value stands in `widgets_values`; anything else is only ever filled by a link."""
        return self.could_be_widget and not self.options.get("forceInput")

    @property
    def control(self) -> Control:
        """Whether a widget beside it says what becomes of the value after each run."""
        if self.widget_type not in ("INT", "COMBO"):
            return "none"
        if not self.options.get("control_after_generate", self.name in SEEDS):
            return "none"
        return "number" if self.widget_type == "INT" else "list"

    @property
    def uploads(self) -> bool:
        """Whether a button for choosing a file stands beside it."""
        return any(self.options.get(name) for name in UPLOADS)

    @property
    def initial(self) -> dict[str, object]:
        """The value of a widget nobody has touched, by name; nothing where the node itself knows best."""
        if "default" in self.options:
            return {self.name: self.options["default"]}
        if not self.required:
            return {}
        match self.widget_type:
            case "COMBO":
                return {self.name: self.choices[0]} if self.choices else {}
            case "STRING":
                return {self.name: ""}
            case "BOOLEAN":
                return {self.name: False}
            case "INT" | "FLOAT":
                least = self.options.get("min")
                return {self.name: max(0, least) if isinstance(least, int | float) else 0}
            case _:
                return {}


@dataclass(frozen=True, slots=True)
class Description:
    """One class of node; inputs in the order in which an editor makes them."""

    name: str
    title: str
    inputs: Mapping[str, DescribedInput]
    outputs: tuple[tuple[str, str], ...]
    """Name and type of each."""
    shows: bool = False
    """Whether it is an output node, which editors make room for a picture in."""

    @property
    def widgets(self) -> tuple[DescribedInput, ...]:
        return tuple(each for each in self.inputs.values() if each.is_widget)

    @property
    def sockets(self) -> tuple[DescribedInput, ...]:
        return tuple(each for each in self.inputs.values() if not each.is_widget)


class Descriptions:
    """Every class that `object_info` tells of, each taken apart when it is first asked for."""

    def __init__(self, infos: NodeInfos) -> None:
        self._infos = infos
        self._known: dict[str, Description | None] = {}

    @property
    def names(self) -> Iterable[str]:
        return self._infos

    def get(self, name: str) -> Description | None:
        if name not in self._known:
            self._known[name] = _description(name, an_object(self._infos[name])) if name in self._infos else None
        return self._known[name]


def _description(name: str, info: Mapping[str, Any]) -> Description:
    sections, orders = an_object(info.get("input")), an_object(info.get("input_order"))
    inputs: dict[str, DescribedInput] = {}
    for section in ("required", "optional"):
        declared = an_object(sections.get(section))
        order = [each for each in a_list(orders.get(section)) if isinstance(each, str) and each in declared]
        for each in dict.fromkeys([*order, *declared]):
            inputs[each] = _input(each, a_list(declared[each]), section == "required")
    types = [_type(each) for each in a_list(info.get("output"))]
    names = [str(each) for each in a_list(info.get("output_name"))]
    outputs = tuple((names[at] if at < len(names) else each, each) for at, each in enumerate(types))
    title = info.get("display_name")
    shown = title if isinstance(title, str) and title else name
    return Description(name, shown, inputs, outputs, bool(info.get("output_node")))


def _input(name: str, declared: list[Any], required: bool) -> DescribedInput:
    """`[TYPE]`, `[TYPE, options]`, or `[[choice, …], options]`."""
    kind = declared[0] if declared else "*"
    options = an_object(declared[1] if len(declared) > 1 else None)
    choices = a_list(kind) or a_list(options.get("options"))
    return DescribedInput(name, _type(kind), required, options, tuple(choices))


def _type(kind: object) -> str:
    return "COMBO" if isinstance(kind, list) else kind if isinstance(kind, str) else "*"
