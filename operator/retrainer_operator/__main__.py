"""`python -m retrainer_operator`: the operator, in a pod or with a kubeconfig."""

import asyncio
import gc
import json
import logging
import os
import sys

from retrainer.errors import RetrainerError
from retrainer_operator.settings import Settings
from retrainer_operator.wiring import Operator

_GC_OBJECTS = 10_000
"""New objects after which Python searches for garbage."""


class _JsonLines(logging.Formatter):
    """Formats a record as one line of JSON, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _log(settings: Settings) -> None:
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines() if settings.log_format == "json" else plain)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # At its info level kopf logs every event of every object.
    logging.getLogger("kopf").setLevel(
        logging.DEBUG if settings.log_level == "debug" else logging.WARNING
    )


async def _run(settings: Settings) -> None:
    await Operator(settings).run()


def main() -> int:
    """Run the operator; return the exit code."""
    try:
        settings = Settings.from_environment(os.environ)
        _log(settings)
        # The watched objects stay in memory for long: searching all for garbage at Python's usual pace
        # took a third of the time to list 15,000 objects.
        gc.set_threshold(_GC_OBJECTS, 20, 50)
        asyncio.run(_run(settings))
    except RetrainerError as error:
        print(f"retrainer-operator: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"retrainer-operator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
