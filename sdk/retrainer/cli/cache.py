"""`retrainer cache`: what is in a bottleneck cache, and deleting what is old."""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from retrainer.cli.output import Format, FormatOption, print_document, print_table, say
from retrainer.cli.reach import Reach, reaching
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


_SHOWN = 8
"""Characters of a fingerprint that tell it from the others; JSON and YAML have all of it."""


@reaching
def stats(
    url: Place,
    *,
    output_format: FormatOption = Format.TABLE,
    reach: Reach,
) -> None:
    """Networks, bottlenecks, bytes and age of a cache.

    [dim]retrainer cache stats s3://models/flowers/.bottlenecks[/]
    """
    from retrainer.store.cache import Cache
    from retrainer.views.text import age

    parts = Cache(url, *reach.storage()).parts()
    if output_format != Format.TABLE:
        print_document([part.to_dict() for part in parts], output_format)
        return
    if not parts:
        say(
            f"No bottlenecks in {url}; a job keeps them in its spec.cache, else in .bottlenecks under "
            "its output."
        )
        return
    rows = [
        (
            ", ".join(p.networks),
            p.fingerprint[:_SHOWN],
            f"{p.bottlenecks:,}",
            p.segments,
            _size(p.size),
            age(p.oldest),
            age(p.newest),
        )
        for p in parts
    ]
    print_table(
        ("NETWORK", "FINGERPRINT", "BOTTLENECKS", "SEGMENTS", "SIZE", "OLDEST", "NEWEST"),
        rows,
        right="BOTTLENECKS SEGMENTS SIZE",
    )


@reaching
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
    reach: Reach,
) -> None:
    """Delete old bottlenecks. Refused while a job of the cluster that uses the cache is unfinished.

    A job that still meets a deleted segment computes those bottlenecks again: slower, never wrong.

    [dim]retrainer cache prune s3://models/flowers/.bottlenecks --older-than 90d --dry-run[/]
    """
    from retrainer.store.cache import Cache

    cache = Cache(url, *reach.storage())
    age = _age(older_than)
    if "://" in url and not force:
        busy = users(reach.client(), url)
        if busy:
            raise UserError(
                f"{url} is in use by {', '.join(busy)}: wait until they end, or give --force "
                "(they would then compute again what is missing)."
            )
    pruned = cache.prune(age, dry_run=dry_run)
    done = "Would delete" if dry_run else "Deleted"
    say(
        f"{done}: segments {pruned.segments:,}, bottlenecks {pruned.bottlenecks:,}, "
        f"{_size(pruned.size)}."
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
    match = re.fullmatch(r"(\d+)([mhd])", text)
    if not match:
        raise UserError(f"--older-than {text}: give a number and m, h or d, such as 90d.")
    return int(match[1]) * _UNITS[match[2]]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
