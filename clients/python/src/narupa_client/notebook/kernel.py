"""What a view needs of the kernel that it lives in."""

from __future__ import annotations

from typing import Any

from IPython.core.getipython import get_ipython


class Cells:
    """Whether a cell runs, which may keep the kernel from hearing of its views. To be closed."""

    def __init__(self) -> None:
        self._events: Any = getattr(get_ipython(), "events", None)
        # What makes a view is a cell.
        self.running = self._events is not None
        if self._events is not None:
            self._events.register("pre_run_cell", self._begin)
            self._events.register("post_run_cell", self._end)

    def close(self) -> None:
        """Nothing is heard of cells any more. Idempotent."""
        events, self._events = self._events, None
        if events is not None:
            events.unregister("pre_run_cell", self._begin)
            events.unregister("post_run_cell", self._end)
        self.running = False

    def _begin(self, _: object) -> None:
        self.running = True

    def _end(self, _: object) -> None:
        self.running = False


def hear_where_asked(comm: Any) -> None:
    """Messages over the comm are dealt with in the subshell that the front end has named.

    JupyterLab has a subshell for them, which goes on while a cell runs. ipykernel 7.4 puts them where the comm was last sent from
    instead; of a comm that is made and sent from in cells, that is the main shell, which hears nothing until the cell has ended.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, named: named
