"""The viewer of a session in a cell of a notebook.

A view talks with the kernel through the notebook's own connection, the comm of its widget, and the kernel passes on what the
viewer says over the session that it has open anyway. So a view works wherever the notebook does (behind a hub, a proxy or a
tunnel, in VS Code), needs no address that the browser could reach and no token in the page, and what is done in it is done by
the user who runs the notebook. The way there, for bytes only, to the gateway's WebSocket would have been shorter; it would have
made each view another user, and needed a gateway within reach of the kernel.

The messages are those of NanoVer's protocol, so that it is the same viewer as in a browser. Whoever shows a notebook may be slow,
hidden or gone: nothing is queued for a viewer that has not said that it has dealt with what came before (`window.py`).
"""
