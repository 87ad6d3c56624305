"""A wire between a client and a server, on a port of this machine, that lets answers drip."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DRIP_SECONDS = 0.05


class Relay:
    """`to` is a TCP address, or the path of a socket. Once a client has said `drips_after`, it is answered byte by byte."""

    def __init__(self, to: tuple[str, int] | str, drips_after: bytes) -> None:
        self.to, self.drips_after = to, drips_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        family = socket.AF_UNIX if isinstance(self.to, str) else socket.AF_INET
        drips = threading.Event()
        with client, socket.socket(family) as server, suppress(OSError):
            server.connect(self.to)
            threading.Thread(target=self._pass_back, args=(server, client, drips), daemon=True).start()
            while said := client.recv(65_536):
                if self.drips_after in said:
                    drips.set()
                server.sendall(said)

    def _pass_back(self, server: socket.socket, client: socket.socket, drips: threading.Event) -> None:
        with suppress(OSError):
            while said := server.recv(65_536):
                for part in (bytes([byte]) for byte in said) if drips.is_set() else (said,):
                    client.sendall(part)
                    time.sleep(DRIP_SECONDS if drips.is_set() else 0)
            client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def relay(to: tuple[str, int] | str, drips_after: bytes) -> Iterator[Relay]:
    made = Relay(to, drips_after)
    try:
        yield made
    finally:
        made.close()
