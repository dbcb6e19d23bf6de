"""The widget: a view of a session in a notebook's cell."""

from __future__ import annotations

import asyncio
import colorsys
import zlib
from pathlib import Path
from typing import Any, Final

import anywidget
import traitlets

from narupa_client.notebook.kernel import Cells, hear_where_asked
from narupa_client.notebook.traits import CameraPlace, Indices
from narupa_client.notebook.viewers import Viewers
from narupa_client.session import Session, account_name

REPRESENTATIONS: Final = ("ball and stick", "liquorice", "spheres", "ribbon", "lines")
COLORS: Final = ("element", "residue", "chain", "uniform")


class SessionView(anywidget.AnyWidget):
    """The viewer of a session, to be shown as the value of a cell; `Session.view` makes one.

    What is set here is seen there, and what is done there is known here: `view.observe(act, "selection")` calls `act` when
    somebody selects. `view.close()` ends it; it ends with the session, too.

    Attributes:
        representation: One of `REPRESENTATIONS`.
        colors: One of `COLORS`.
        selection: Indices of the particles that are selected, ascending; set from anything that is a row of whole numbers.
        camera: `{"position": [x, y, z], "target": [x, y, z]}`, nm, in the simulation's space, of which Y is up: where the camera
            is and what it looks at. None until the view was shown.
        height: Of the view, pixels.
    """

    _viewers: Viewers | None = None
    _cells: Cells | None = None
    _esm = Path(__file__).parent / "static" / "view.js"

    representation = traitlets.Enum(REPRESENTATIONS, REPRESENTATIONS[0]).tag(sync=True)
    colors = traitlets.Enum(COLORS, COLORS[0]).tag(sync=True)
    selection = Indices().tag(sync=True)
    camera = CameraPlace(allow_none=True).tag(sync=True)
    height = traitlets.Int(420, min=120, max=4000).tag(sync=True)
    _user = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, session: Session, loop: asyncio.AbstractEventLoop, **traits: Any) -> None:
        """
        Args:
            session: What is seen.
            loop: The event loop that the session lives on.
            **traits: Attributes that are other than by default.

        Raises:
            traitlets.TraitError: an attribute has a value that it cannot have.
        """
        if unknown := traits.keys() - {"representation", "colors", "selection", "camera", "height"}:
            raise TypeError(f"a view has no {', '.join(sorted(unknown))}")
        name = next((user.name for user in session.users if user.id == session.user_id), "") or account_name()
        super().__init__(**traits)
        hear_where_asked(self.comm)
        self.set_trait("_user", {"name": name, "color": color_of(name)})
        self._cells = cells = Cells()
        self._viewers = viewers = Viewers(session, self.send, loop, lambda: cells.running)
        self.on_msg(lambda _, content, buffers: viewers.receive(content, buffers))

    def close(self) -> None:
        """The view shows nothing any more, here and wherever it is shown. Idempotent."""
        if self._viewers is not None:
            self._viewers.close()
        if self._cells is not None:
            self._cells.close()
        super().close()


def color_of(name: str) -> str:
    """A colour for somebody, `#rrggbb`: the same for the same name, and to be seen on light and on dark."""
    red, green, blue = colorsys.hls_to_rgb(zlib.crc32(name.encode()) % 360 / 360, 0.5, 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
