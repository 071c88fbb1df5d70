"""Ports for servers that tests start."""

import random
import socket

_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that nobody gets before the server that it is for has started.

    Below the range from which the kernel takes ports for outgoing connections (32768), so that nothing
    takes it meanwhile, or between a server's end and its next start; and below Kubernetes' node ports.
    """
    for port in random.sample(range(20000, 30000), 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    raise RuntimeError("Of 100 ports tried between 20000 and 30000, none is free.")
