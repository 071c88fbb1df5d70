"""`retrainer backbone`: networks of one's own, made, listed and looked at."""

from typing import Annotated

import typer

from retrainer.cli.output import Format, FormatOption, echo, print_document, print_table, say
from retrainer.cli.reach import Reach, reaching
from retrainer.views.text import near


def register(app: typer.Typer, heading: str) -> None:
    """Add `backbone` and its commands to `app`."""
    backbone = typer.Typer(help="Make or list frozen networks of your own.", no_args_is_help=True)
    backbone.command()(add)
    backbone.command("list")(list_networks)
    app.add_typer(backbone, name="backbone", rich_help_panel=heading)


@reaching
def add(
    name: Annotated[
        str, typer.Argument(help="Network of Keras Applications, such as EfficientNetB0.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Path or URL of its folder.")],
    *,
    weights: Annotated[
        str,
        typer.Option(
            help="imagenet (the download, which Keras checks), a .h5 file without the classifier, or "
            "none for random numbers."
        ),
    ] = "imagenet",
    size: Annotated[
        int | None,
        typer.Option(min=8, help="Height and width of the input; the network's own if not given."),
    ] = None,
    reach: Reach,
) -> None:
    """Make a backbone's folder of any network of Keras Applications; needs TensorFlow.

    A name that Keras does not have prints those that it has.

    [dim]retrainer backbone add EfficientNetB0 --to networks/efficientnet-b0[/]
    """
    from retrainer.local.backbones import add_backbone

    storage, _ = reach.storage()
    facts = add_backbone(name, to, weights=weights, size=size, storage=storage, log=say)
    cost = _millions(facts.multiply_adds)
    echo(
        f"Wrote {', '.join(facts.files)} to {near(to)}: {facts.size} x {facts.size} pixels to "
        f"{facts.bottleneck:,} numbers, {cost} multiply-adds. "
        f"Next: retrainer run PHOTOS --backbone {near(to)}"
    )


@reaching
def list_networks(
    url: Annotated[str, typer.Argument(metavar="URL", help="Path or URL of a folder of networks.")],
    *,
    output_format: FormatOption = Format.TABLE,
    reach: Reach,
) -> None:
    """List the networks under a folder, by their files; none is opened.

    [dim]retrainer backbone list s3://networks[/]
    """
    from retrainer.local.backbones import list_backbones

    storage, access = reach.storage()
    networks = list_backbones(url, storage=storage, access=access)
    if output_format != Format.TABLE:
        print_document([network.model_dump(by_alias=True) for network in networks], output_format)
        return
    if not networks:
        say(
            f"No .onnx or .tflite file in {near(url)}; retrainer backbone add makes a network's folder."
        )
        return
    rows = [(n.name, n.file, _megabytes(n.size), "yes" if n.configured else "no") for n in networks]
    print_table(("NAME", "FILE", "SIZE", "CONFIGURED"), rows, right="SIZE")


def _millions(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:,.1f} M"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
