"""`retrainer backbone`: networks of one's own, made, listed and looked at."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrainer.api import Token
from retrainer.cli.output import Format, FormatOption, echo, print_document, print_table, say
from retrainer.cli.reach import Reach, reaching
from retrainer.views.text import near

if TYPE_CHECKING:
    from retrainer.api.networks import NetworkFacts

Place = Annotated[
    str,
    typer.Argument(metavar="URL", help="Path or URL of a folder, or of an .onnx or .tflite file."),
]


def register(app: typer.Typer, heading: str) -> None:
    """Add `backbone` and its commands to `app`."""
    backbone = typer.Typer(
        help="Make, list or look at frozen networks of your own.", no_args_is_help=True
    )
    backbone.command()(add)
    backbone.command()(show)
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
def show(
    url: Place,
    image: Annotated[Path | None, typer.Argument(help="A photo to run it on.")] = None,
    *,
    output: Annotated[
        str | None,
        typer.Option("--backbone-output", help="Output to use, where there are several."),
    ] = None,
    token: Annotated[
        Token | None, typer.Option(help="Of an output with tokens: cls or mean.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Height and width, where the file takes any.")
    ] = None,
    output_format: FormatOption = Format.TABLE,
    reach: Reach,
) -> None:
    """Say what a network's folder or file holds, and run it on a photo.

    [dim]retrainer backbone show s3://networks/dinov2-small rose.jpg[/]
    """
    from retrainer.local.backbones import show_backbone

    storage, _ = reach.storage()
    chosen = None if token is None else token.value
    facts = show_backbone(url, image, storage=storage, output=output, token=chosen, size=size)
    if output_format != Format.TABLE:
        print_document(facts.model_dump(by_alias=True, exclude_none=True), output_format)
        return
    print_table(("", ""), _rows(facts))


def _rows(facts: "NetworkFacts") -> list[tuple[str, str]]:
    rows = [
        ("Network", facts.name),
        ("Format", f"{facts.format}, {_megabytes(sum(facts.files.values()))}"),
        ("Input", f"{facts.size} x {facts.size} pixels, {facts.layout}"),
    ]
    for output in facts.outputs:
        shape = " x ".join("any" if size is None else f"{size:,}" for size in output.shape)
        used = ", used" if output.name == facts.output else ""
        rows.append(("Output", f"{output.name} ({shape}{used})"))
    rows += [
        ("Bottleneck", f"{facts.bottleneck:,} numbers"),
        ("Multiply-adds", _millions(facts.multiply_adds)),
        ("Parameters", _millions(facts.parameters)),
        ("Pixels", _pixels(facts.preprocessing)),
        ("Runs on", facts.runs_on),
    ]
    if facts.seconds is not None and facts.norm is not None:
        numbers = ", ".join(f"{number:.3f}" for number in facts.start)
        rows.append(("The photo", f"{1000 * facts.seconds:,.0f} ms on one core"))
        rows.append(("Its bottleneck", f"{numbers}, ...; length {facts.norm:.3g}"))
    return rows


def _pixels(preprocessing: dict[str, object]) -> str:
    names = ("crop", "edge", "channels", "scale", "mean", "std")
    parts = []
    for name in names:
        value = preprocessing.get(name)
        numbers = value if isinstance(value, list) else [value]
        texts = [f"{n:.4g}" if isinstance(n, float) else str(n) for n in numbers]
        parts.append(f"{name} {' '.join(dict.fromkeys(texts))}")
    return ", ".join(parts)


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
