"""Commands that need no cluster: run, predict, init, validate, tensorboard, architectures."""

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""

    @app.command()
    def architectures() -> None:
        """List the networks that can be retrained."""
        from retrainer.api import ARCHITECTURES

        for name in ARCHITECTURES:
            typer.echo(name)
