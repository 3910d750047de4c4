"""Single flight: what several steps need made at the same time is made once.

A step joins the flight of its key when it is ready. The first of them that gets a place in its lane makes it; those
that get one meanwhile are grounded. When the flight lands, all the others have what they need.
"""

from graph.keys import Key
from graph.tasks import Task


class Flights:
    """What is needed, and what is being made. Not safe for several threads: the crew's lock guards it."""

    def __init__(self) -> None:
        self._needed: dict[Key, list[Task]] = {}
        self._makers: dict[Key, Task] = {}
        self._grounded: set[Task] = set()

    def join(self, task: Task) -> None:
        """Take in a step that is ready."""
        if task.key is not None:
            needed = self._needed.get(task.key)
            if needed is None:
                self._needed[task.key] = [task]
            elif task not in needed:
                needed.append(task)

    def board(self, task: Task) -> bool:
        """Whether a step that has got a place is to be made. Otherwise another one is at it, and this one waits."""
        if task.key is None or self._makers.setdefault(task.key, task) is task:
            return True
        self._grounded.add(task)
        return False

    def land(self, task: Task) -> list[Task]:
        """A step has been made. Returns the others that need the same."""
        key = task.key
        if key is None or self._makers.get(key) is not task:
            return []
        del self._makers[key]
        needed = self._needed.pop(key)
        needed.remove(task)
        self._grounded.difference_update(needed)
        return needed

    def leave(self, task: Task) -> list[Task]:
        """A step will not be made, or not any more. Returns those that wait for nothing by that."""
        key = task.key
        if key is None:
            return []
        self._grounded.discard(task)
        needed = self._needed.get(key, [])
        if task in needed:
            needed.remove(task)
            if not needed:
                del self._needed[key]
        if self._makers.get(key) is not task:
            return []
        del self._makers[key]
        stranded = [other for other in needed if other in self._grounded]
        self._grounded.difference_update(stranded)
        return stranded

    def maker(self, task: Task) -> Task | None:
        """Which step is at what this one needs."""
        return None if task.key is None else self._makers.get(task.key)

    def grounded(self, serial: int) -> list[Task]:
        """The steps of a run that wait for others to be made."""
        return [task for task in self._grounded if task.queue.serial == serial]
