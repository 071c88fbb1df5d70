"""The real operator behind a fault proxy, for tests and for `make faults`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.faults.proxy import Proxy, Server, kubeconfig_through
from tests.operator.harness import Bed, Operator


@dataclass
class Behind:
    """An operator, and the proxy through which it reaches its API server."""

    operator: Operator
    proxy: Proxy


@contextmanager
def operator_behind_proxy(
    bed: Bed,
    identity: str = "faulty",
    *,
    wait: bool = True,
    keep_lists: bool = False,
    **environment: str,
) -> Iterator[Behind]:
    """An operator that reaches its API server through a proxy of its own, until the block ends."""
    original = bed.cluster.account_kubeconfig("retrainer", "rt-retrainer-operator")
    with Proxy(Server.of_kubeconfig(original), keep_lists=keep_lists) as proxy:
        kubeconfig = kubeconfig_through(proxy, original, bed.folder / f"{identity}.kubeconfig")
        operator = Operator(kubeconfig, bed.folder / f"{identity}.log", identity, **environment)
        try:
            yield Behind(operator.start(wait=wait), proxy)
        finally:
            proxy.clear()
            operator.stop()
