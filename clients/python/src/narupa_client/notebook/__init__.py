"""The viewer of a session in a cell of a notebook.

A view talks with the kernel through the notebook's own connection, the comm of its widget, and the kernel passes on what the
viewer says over the session that it has open anyway. So a view works wherever the notebook does (behind a hub, a proxy or a
tunnel, in VS Code), needs no address that the browser could reach and no token in the page, and what is done in it is done by
the user who runs the notebook. The way there, for bytes only, to the gateway's WebSocket would have been shorter; it would have
made each view another user, and needed a gateway within reach of the kernel.

The messages are those of NanoVer's protocol, so that it is the same viewer as in a browser. Whoever shows a notebook may be slow,
hidden or gone: at most four frames and four changes of the state are under way to a viewer that has not said that it has dealt
with what came before (`window.py`).

While a cell runs, the kernel may not hear what a viewer says, though the viewer hears the kernel: so it is unless the front end
sends over a subshell, as JupyterLab from 4.4 on does with ipykernel 7 (`kernel.py`). A viewer that is silent for 1 s while
a cell runs is sent to all the same, at a pace that is bounded by time and by what is under way: at most five frames a second; at
first at most 224 kB/s of them, less the more stays unacknowledged, and nothing more once 64 MiB do; as much again of the state.
What a viewer says meanwhile waits for the end of the cell: 16 acknowledgements, then one a minute, and four writes.
"""
