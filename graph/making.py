"""Making a step: its node is called, what it returns is looked over, and what it raises becomes the step's failure."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from threading import current_thread, main_thread
from typing import Any, cast

from graph.active_run import ActiveRun
from graph.calling import arguments, outputs_of
from graph.cancellation import Cancellation, Progress, StepCancellation
from graph.codec import Codec, NoCodec
from graph.errors import Cancelled, InputChanged, OutOfMemory, StrayCancellation, let_go_of
from graph.fingerprints import fingerprint
from graph.identities import PLAIN, Revealed, item_name, literal_name
from graph.interrupts import admitted
from graph.keys import Key, Origin
from graph.lists import Items
from graph.previews import Preview
from graph.resolve import Step
from graph.store import Outputs
from graph.tasks import Outcome, Task
from graph.values import Service, Shortage, Ui, Value

Finish = Callable[[Task, Outcome], None]
"""Is told what came of an async node, on the thread of its loop."""


_Print = tuple[str, object, Origin | None]
"""The name of an input, its value, and what that is."""


class Maker:
    """Calls the nodes of steps.

    Args:
        codec: what fingerprints are made with.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def make(self, task: Task, finish: Finish) -> Outcome | None:
        """Call a step's node. None if it is async and under way: then `finish` will be told. Never raises."""
        return self._attempt(task, finish, None)

    def contents(self, step: Step, key: Key, outputs: Outputs) -> tuple[Revealed, ...] | None:
        """The names of outputs by which what follows goes, if it goes by content."""
        if not step.node.cutoff:
            return None
        return tuple(self._content(value, (key, at)) for at, value in enumerate(outputs))

    def _attempt(self, task: Task, finish: Finish, before: Shortage | None) -> Outcome | None:
        try:
            return self._call(task, finish, before)
        except BaseException as error:  # a node can raise anything, and must not end the thread it runs on
            return self._failed(task, finish, error, before)

    def _failed(self, task: Task, finish: Finish, error: BaseException, before: Shortage | None) -> Outcome | None:
        """What came of a step whose node raised; another attempt if it was for want of memory.

        Args:
            before: what was missing at the first attempt, if this was the second.
        """
        run = task.queue
        left = task.abandoned or run.stopping is not None
        if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
            run.stop(error)
            return Outcome(error=Cancelled("the run was interrupted"))
        if isinstance(error, asyncio.CancelledError) and left:
            return Outcome(error=Cancelled("the run was cancelled"))
        if isinstance(error, Cancelled):
            return Outcome(error=error if left or run.cancellation.requested else _because(StrayCancellation(), error))
        shortage = _shortage(run, error)
        if shortage is None:
            return Outcome(error=error)
        if before is not None:
            shortage = replace(shortage, resident=before.resident, freed=before.freed + shortage.freed)
            return Outcome(error=_because(OutOfMemory(shortage), error))
        # What was idle has been freed: it may do now, if the failed attempt holds nothing any more.
        let_go_of(error)
        return self._attempt(task, finish, shortage)

    def _call(self, task: Task, finish: Finish, before: Shortage | None) -> Outcome | None:
        run, step = task.queue, task.step
        began = time.perf_counter()
        given = arguments(step, run.values)
        prints = self._prints(given) if run.options.check_inputs else []
        call = dict(given)
        for name, kind in step.node.services.items():
            call[name] = _service(kind, task)
        context = run.context.copy()
        if not step.node.is_async:
            with admitted:
                returned = context.run(step.node.function, **call)
            return self._received(task, prints, returned, began)

        def done(returned: object, raised: BaseException | None) -> None:
            try:
                if raised is not None:
                    raise raised
                outcome = self._received(task, prints, returned, began)
            except BaseException as error:
                outcome = self._failed(task, finish, error, before)
            if outcome is not None:
                finish(task, outcome)

        coroutine = cast("Coroutine[Any, Any, object]", context.run(step.node.function, **call))
        task.awaited = run.loop.submit(coroutine, done, context)
        if task.awaited is None:
            return Outcome(error=Cancelled("the run was cancelled"))
        if run.stopping is not None or task.abandoned:
            task.awaited.cancel()
        return None

    def _received(self, task: Task, prints: Iterable[_Print], returned: object, began: float) -> Outcome:
        """What a node returned, looked over."""
        step = task.step
        for name, value, before in prints:
            if self._named(value) != before:
                raise InputChanged(name)
        outputs = outputs_of(step.node, returned)
        seconds = time.perf_counter() - began
        contents = None if task.key is None else self.contents(step, task.key, outputs)
        return Outcome(outputs, returned if isinstance(returned, Ui) else None, seconds=seconds, contents=contents)

    def _content(self, value: object, place: Origin) -> Revealed:
        items = None
        if isinstance(value, Items):  # which have no entries of their own
            items = tuple(Revealed(self._named(item) or item_name(place, at)) for at, item in enumerate(value.values))
        return Revealed(self._named(value) or place, place, items)

    def _named(self, value: object) -> Origin | None:
        if type(value) in PLAIN:
            return literal_name(value)
        try:
            return fingerprint(value, self._codec), 0
        except NoCodec:
            return None

    def _prints(self, given: Mapping[str, object]) -> list[_Print]:
        """What the values among the inputs are; a list of them is a node's own, and may be changed."""
        prints: list[_Print] = []
        for name, value in given.items():
            items = cast("list[object]", value) if isinstance(value, list) else [value]
            prints += [(name, item, self._named(item)) for item in items if isinstance(item, Value)]
        return prints


def _service(kind: type[Service], task: Task) -> Service:
    run = task.queue
    if kind is Progress:
        return Progress(partial(run.progress, task), _cancellation(task))
    if kind is Cancellation:
        return _cancellation(task)
    if kind is Preview:
        return Preview(partial(setattr, task, "preview") if run.options.previews else None)
    service = run.services.get(kind)
    if service is None:
        raise LookupError(f"the node needs the service {kind.__name__}, which this engine does not have")
    return service


def _cancellation(task: Task) -> Cancellation:
    return StepCancellation(task.queue.cancellation, lambda: task.abandoned or task.queue.stopping is not None)


def _shortage(run: ActiveRun, error: BaseException) -> Shortage | None:
    """What was missing, if a node failed for want of memory; what was idle is free by then."""
    for service in run.services.values():
        shortage = service.relieve(error)
        if shortage is not None:
            return shortage
    return None


def _because(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error
