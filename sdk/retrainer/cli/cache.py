"""`retrainer cache`: what is in a bottleneck cache, and deleting what is old."""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from retrainer.cli.output import (
    Context,
    Endpoint,
    Insecure,
    Namespace,
    Region,
    Shape,
    Shaped,
    client,
    located,
    print_document,
    print_table,
    say,
)
from retrainer.errors import Forbidden, UserError

if TYPE_CHECKING:
    from retrainer.cluster.client import Client

Place = Annotated[str, typer.Argument(help="URL or path of the cache (spec.cache of the jobs).")]


def register(app: typer.Typer) -> None:
    """Add `cache` and its commands to `app`."""
    cache = typer.Typer(
        help="Look at a bottleneck cache, or delete what is old.", no_args_is_help=True
    )
    cache.command()(stats)
    cache.command()(prune)
    app.add_typer(cache, name="cache", rich_help_panel="Results")


def stats(
    url: Place,
    *,
    form: Shaped = Shape.TABLE,
    endpoint: Endpoint = None,
    region: Region = None,
    insecure: Insecure = False,
) -> None:
    """Networks, bottlenecks, bytes and age of a cache.

    [dim]retrainer cache stats s3://models/flowers/.bottlenecks[/]
    """
    from retrainer.store.cache import Cache
    from retrainer.views.text import age

    url, storage, access = located(url, endpoint=endpoint, region=region, insecure=insecure)
    parts = Cache(url, storage, access).parts()
    if form != Shape.TABLE:
        print_document([part.to_dict() for part in parts], form)
        return
    if not parts:
        say(
            f"No bottlenecks in {url}; a job keeps them in its spec.cache, else in .bottlenecks under "
            "its output."
        )
        return
    rows = [
        (
            p.fingerprint,
            f"{p.bottlenecks:,}",
            p.segments,
            _size(p.size),
            age(p.oldest),
            age(p.newest),
        )
        for p in parts
    ]
    print_table(
        ("FINGERPRINT", "BOTTLENECKS", "SEGMENTS", "SIZE", "OLDEST", "NEWEST"),
        rows,
        right="BOTTLENECKS SEGMENTS SIZE",
    )


def prune(
    url: Place,
    *,
    older_than: Annotated[
        str, typer.Option(help="Age: 90d, 12h, 30m. Segments written before that are deleted.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Do not ask a cluster whether jobs use the cache.")
    ] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    insecure: Insecure = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Delete old bottlenecks. Refused while a job of the cluster that uses the cache is unfinished.

    A job that still meets a deleted segment computes those bottlenecks again: slower, never wrong.

    [dim]retrainer cache prune s3://models/flowers/.bottlenecks --older-than 90d --dry-run[/]
    """
    from retrainer.store.cache import Cache

    url, storage, access = located(url, endpoint=endpoint, region=region, insecure=insecure)
    cache = Cache(url, storage, access)
    age = _age(older_than)
    if "://" in url and not force:
        busy = users(client(namespace, context), url)
        if busy:
            raise UserError(
                f"{url} is in use by {', '.join(busy)}: wait until they end, or give --force "
                "(they would then compute again what is missing)."
            )
    pruned = cache.prune(age, dry_run=dry_run)
    word = "would delete" if dry_run else "deleted"
    say(
        f"{word}: segments {pruned.segments:,}, bottlenecks {pruned.bottlenecks:,}, "
        f"{_size(pruned.size)}"
    )


def users(client: "Client", url: str) -> list[str]:
    """List the unfinished jobs that use the cache at `url`, as `namespace/name`.

    All namespaces are asked, or the client's own where the person may not list all.
    """
    try:
        jobs = client.list(all_namespaces=True)
    except Forbidden:
        jobs = client.list()
    return [
        f"{job.namespace}/{job.name}"
        for job in jobs
        if not job.finished and job.cache_url.rstrip("/") == url.rstrip("/")
    ]


_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+)([mhd])", text)
    if not found:
        raise UserError(f"--older-than {text}: give a number and m, h or d, such as 90d.")
    return int(found[1]) * _UNITS[found[2]]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
