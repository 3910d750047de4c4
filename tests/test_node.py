import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, assert_type

import pytest
from annotated_types import Ge, Lt
from pydantic import Field

from graph.cancellation import Progress
from graph.catalogue import AnyNode
from graph.folders import Folders
from graph.node import MISSING, DeclarationError, Known, Named, Node, composite, node
from graph.values import INJECTED, Ui, Value
from tests.toys import Note, Pair, Wool, Yarn


def test_parameters_are_told_apart_by_annotation():
    @node("Dye")
    def dye(yarn: Yarn, colour: str, folders: Folders = INJECTED, progress: Progress = INJECTED) -> Yarn:
        return yarn

    assert {name: given.wire for name, given in dye.inputs.items()} == {"yarn": "YARN", "colour": "STRING"}
    assert dye.services == {"folders": Folders, "progress": Progress}


def test_a_named_tuple_names_the_outputs():
    class Measured(NamedTuple):
        yarn: Yarn
        length: Annotated[int, Ge(0)]

    @node("Measure")
    def measure(yarn: Yarn) -> Measured:
        return Measured(yarn, yarn.length)

    assert [(output.name, output.wire) for output in measure.outputs] == [("yarn", "YARN"), ("length", "INT")]


def test_an_optional_value_is_not_required():
    @node("Twist")
    def twist(a: Yarn, b: Yarn | None = None) -> Yarn:
        return a

    assert twist.inputs["a"].required
    assert not twist.inputs["b"].required
    assert twist.inputs["b"].value is Yarn


Length = Annotated[int, Field(ge=1), Lt(100)]


def test_limits_are_read_from_annotations_however_they_are_nested():
    @node("Spin")
    def spin(length: Length, most: Length | None = None, least: Annotated[Length, Ge(5)] = 7) -> Yarn:
        return Yarn()

    limits = {name: str(given.literal.limits) for name, given in spin.inputs.items() if given.literal}
    assert limits["length"] == limits["most"] == "at least 1 and below 100"


def test_calling_a_node_calls_its_function():
    @node("Spin")
    def spin(colour: str, length: int = 2) -> Yarn:
        """Makes yarn."""
        return Yarn(colour, length)

    assert assert_type(spin("blue"), Yarn) == Yarn("blue", 2)
    assert (spin.__doc__, spin.description) == ("Makes yarn.", "Makes yarn.")
    assert list(inspect.signature(spin).parameters) == ["colour", "length"]


def test_a_type_that_inherits_a_value_keeps_its_kind():
    @node("Shear")
    def shear() -> Wool:
        return Wool()

    @node("Take")
    def take(yarn: Yarn, wool: Wool, anything: Value) -> Yarn:
        return yarn

    (wool,) = shear.outputs
    assert wool.wire == "YARN"
    assert [given.accepts(wool) for given in take.inputs.values()] == [True, True, True]


def test_a_link_may_not_widen_a_type():
    @node("Spin")
    def spin() -> Pair: ...

    @node("Knit")
    def knit(wool: Wool, number: int) -> Yarn: ...

    assert [given.accepts(spin.outputs[0]) for given in knit.inputs.values()] == [False, False]


@pytest.mark.parametrize(
    ("given", "taken", "fits"),
    [
        (int, int, True),
        (int, float, True),
        (float, int, False),
        (int, str, False),
        (str, Literal["a", "b"], True),
        (Literal["a", "b"], str, True),
        (bool, int, False),
        (int, int | None, True),
        (int, Any, True),
        (str, int | str, True),
        (list[float], list[int], True),
    ],
)
def test_which_literal_may_end_where(given: Any, taken: Any, fits: bool):
    def make(): ...

    def take(value: object) -> Note: ...

    make.__annotations__["return"] = given
    take.__annotations__["value"] = taken
    assert node("Take")(take).inputs["value"].accepts(node("Make")(make).outputs[0]) is fits


def test_attributes_of_a_function_do_not_change_its_node():
    def spin() -> Yarn: ...

    spin.__dict__["name"] = "not this"
    assert node("Spin")(spin).name == "Spin"


def test_a_whole_default_of_a_float_is_a_float():
    @node("Half")
    def half(value: float = 1, values: list[float] = [1, 2]) -> float:  # noqa: B006  # a default that nobody changes
        return value

    defaults = [given.default for given in half.inputs.values()]
    assert defaults == [1, [1, 2]]
    assert [type(default) for default in (defaults[0], *defaults[1])] == [float, float, float]  # pyright: ignore  # defaults are of any type


def refused(function: Callable[..., Any], make: Callable[..., Callable[..., AnyNode]] = node) -> str:
    with pytest.raises(DeclarationError) as caught:
        make("Bad")(function)
    return str(caught.value)


def test_bad_parameters_are_refused_with_their_name():
    def star(*yarns: Yarn) -> Yarn: ...

    def stars(**yarns: Yarn) -> Yarn: ...

    def first(yarn: Yarn, /) -> Yarn: ...

    for function in (star, stars, first):
        assert "must be an ordinary or keyword-only parameter" in refused(function)


def test_inputs_may_have_names_that_are_no_identifiers():
    @node("Mix")
    def mix(yarn: Yarn, **shares: Annotated[float, Field(ge=0, le=1), Named(("in.0.", "out."), 0.5)]) -> Yarn:
        return Yarn(str(shares))

    assert {name: given.default for name, given in mix.inputs.items()} == {"yarn": MISSING, "in.0.": 0.5, "out.": 0.5}
    assert {str(given.literal.limits) for given in mix.inputs.values() if given.literal} == {"at least 0 and at most 1"}
    assert mix(Yarn(), **{"out.": 0.25}) == Yarn("{'out.': 0.25}")


def test_what_is_neither_value_nor_service_nor_json_is_refused():
    class Loom: ...

    def takes(loom: Loom) -> Yarn: ...

    def gives() -> Loom: ...

    assert "parameter 'loom' is" in refused(takes)
    assert "neither a Value nor a Service nor a type of JSON" in refused(takes)
    assert "what it returns is" in refused(gives)


def test_several_values_at_once_are_refused():
    def listed(yarns: list[Yarn]) -> Yarn: ...

    def either(yarn: Yarn | Note) -> Yarn: ...

    def both() -> tuple[Yarn, Yarn]: ...

    assert "a link carries one value" in refused(listed)
    assert "a link carries one value" in refused(either)
    assert "returns a NamedTuple" in refused(both)


def test_a_node_must_say_what_it_returns():
    def nothing() -> None: ...

    def unsaid(): ...

    assert "it returns nothing" in refused(nothing)
    assert "no return annotation" in refused(unsaid)


@pytest.mark.parametrize(
    ("annotation", "default"),
    [(int, "many"), (int, None), (Annotated[int, Ge(1)], 0), (Literal["a", "b"], "c"), (float, float("nan"))],
)
def test_a_default_that_does_not_fit_is_refused(annotation: Any, default: object):
    def bad(x: object = default) -> Yarn: ...

    bad.__annotations__["x"] = annotation
    assert f"the default {default!r} of parameter 'x' does not fit its type" in refused(bad)


def test_an_unknown_annotation_is_refused_with_its_name():
    def bad(yarn: object) -> Yarn: ...

    bad.__annotations__["yarn"] = "Thread"
    assert "the annotation 'Thread' is not known where the node is declared" in refused(bad)


def test_local_types_and_forward_references_to_module_types_are_known():
    @dataclass(frozen=True)
    class Thread(Value, kind="THREAD"):
        pass

    @node("Pull")
    def pull(thread: Thread, yarn: "Yarn") -> Thread:
        return thread

    assert [given.value for given in pull.inputs.values()] == [Thread, Yarn]


def test_a_composite_cannot_be_async():
    async def bad() -> Yarn: ...

    assert "cannot be async" in refused(bad, composite)


def test_a_node_that_shows_something_is_a_sink():
    @node("Show")
    def show(yarn: Yarn) -> Note:
        return Note("")

    assert show.sink
    assert show.outputs == ()
    assert issubclass(Note, Ui)


def test_known_is_what_a_composite_can_look_at():
    @composite("Twice")
    def twice(yarn: Known[Yarn], other: Yarn, times: int = 2) -> Yarn:
        return yarn

    assert [given.known for given in twice.inputs.values()] == [True, False, True]
    assert isinstance(twice, Node)
    assert twice.composite
