"""`retrainer`, the command line: one typer app, most of its commands registered by two modules.

`local.register(app)` adds what runs on this machine, `cluster.register(app)` what talks to a cluster.
A command raises `RetrainerError`; here it becomes one sentence on stderr and the exit code:
0, 64 for the user's mistakes (EX_USAGE, as the trainer's), 130 for Ctrl-C, 1 for anything else.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer.main

from retrainer import __version__
from retrainer.api.names import EXIT_USER
from retrainer.cli import backbone, cluster, local
from retrainer.errors import RetrainerError
from retrainer.views.text import paragraph, terminal_width

EXIT_CTRL_C = 130
EXIT_CLICK_USAGE = 2
"""Exit code of typer when the command line itself is wrong."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"retrainer {__version__}")
        raise typer.Exit


def build() -> typer.Typer:
    """Build the app with every command."""
    app = typer.Typer(
        name="retrainer",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def retrainer(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
        ] = False,
    ) -> None:
        """Retrain the last layer of an ImageNet network on your own photos.

        Start here: [bold]retrainer run FOLDER[/], with a folder of photos per label in
        FOLDER. Or [bold]retrainer init[/], then [bold]retrainer run -f job.yaml[/] on this
        machine or [bold]retrainer submit -f job.yaml[/] on a cluster.
        """

    local.register(app)
    backbone.register(app, local.HERE)
    cluster.register(app)
    app.command(rich_help_panel=local.HERE)(completion)
    return app


class Shell(StrEnum):
    """Shells that can complete what is typed."""

    BASH = "bash"
    FISH = "fish"
    ZSH = "zsh"


def completion(shell: Annotated[Shell, typer.Argument(help="Which shell.")]) -> None:
    """Print what makes a shell complete commands, options and networks.

    [dim]source <(retrainer completion bash)[/]
    """
    # typer's own way to ask for it; its --show-completion has to guess the shell.
    os.environ["_RETRAINER_COMPLETE"] = f"source_{shell}"
    raise typer.Exit(run(build(), []))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: the words after `retrainer`; `sys.argv[1:]` if None.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII only
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # Python's are for who writes a program
    sys.exit(run(build(), arguments))


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run one command of `app`; errors become a sentence on stderr.

    Returns:
        The exit code.
    """
    command = typer.main.get_command(app)
    # `retrainer completion` does what these two do.
    command.params = [p for p in command.params if not str(p.name).endswith("_completion")]
    try:
        try:
            command(list(arguments) if arguments is not None else None, prog_name="retrainer")
        finally:
            sys.stdout.flush()  # so that a full disk is noticed here and not while Python ends
    except SystemExit as stop:
        return _code(stop.code)
    except RetrainerError as error:
        _say(f"{error} {error.command}".rstrip())
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_CTRL_C
    except UnicodeEncodeError as error:  # a locale without UTF-8
        letter = error.object[error.start]
        _say(
            f"This terminal's encoding ({error.encoding}) has no {letter}, which a name needs: "
            "set LC_ALL=C.UTF-8."
        )
        return EXIT_USER
    except OSError as error:  # a full disk, a folder that may not be written
        _drop_output()
        if not isinstance(error, BrokenPipeError):  # the reader closed the output, as `head` does
            _say(f"{error.filename or 'cannot write the output'}: {error.strerror or error}")
        return 1
    return 0


def _drop_output() -> None:
    """Let go of what could not be written: Python would try again at its end, and exit with 120."""
    with contextlib.suppress(OSError, ValueError):  # no file of its own, as in a notebook or a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _code(code: Any) -> int:
    if code == EXIT_CLICK_USAGE:
        return EXIT_USER
    return code if isinstance(code, int) else int(code is not None)


def _say(message: str) -> None:
    red, off = ("\033[1;31m", "\033[0m") if _colour() else ("", "")
    text = paragraph(f"error: {message}", terminal_width(sys.stderr))
    print(f"{red}error:{off}{text.removeprefix('error:')}", file=sys.stderr)


def _colour() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


if __name__ == "__main__":
    main()
