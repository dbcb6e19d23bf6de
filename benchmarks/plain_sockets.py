"""The floor that the operating system sets: the positions of so many atoms to blocking sockets, 30 times a second.

`python benchmarks/plain_sockets.py ATOMS` prints the port; a line `play` or `pause` on standard input says whether it sends, and
its end ends the server. Nothing is encoded, and nobody but the socket is asked.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import Final

INTERVAL_S: Final = 1 / 30


def accept(listener: socket.socket, connections: list[socket.socket]) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections.append(connection)


def send(message: bytes, connections: list[socket.socket], playing: threading.Event) -> None:
    due = time.monotonic()
    while True:
        if not playing.is_set():
            playing.wait()
            due = time.monotonic()
        for connection in list(connections):
            try:
                connection.sendall(message)
            except OSError:
                connections.remove(connection)
        due += INTERVAL_S
        time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    connections: list[socket.socket] = []
    playing = threading.Event()
    threading.Thread(target=accept, args=(listener, connections), daemon=True).start()
    message = bytes(12 * int(sys.argv[1]))
    threading.Thread(target=send, args=(message, connections, playing), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    for line in sys.stdin:
        if line.strip() == "play":
            playing.set()
        else:
            playing.clear()
    os._exit(0)


if __name__ == "__main__":
    main()
