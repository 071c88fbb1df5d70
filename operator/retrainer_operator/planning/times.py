"""Times as Kubernetes writes them, and as Unix seconds."""

from datetime import UTC, datetime


def parse_time(timestamp: str | None) -> float | None:
    """Read an RFC 3339 timestamp as Unix time; None for one that cannot be read.

    The API server's own check lets pass what is none, such as a year 0 or words behind the time.
    """
    try:
        return datetime.fromisoformat(timestamp).astimezone(UTC).timestamp() if timestamp else None
    except (ValueError, OverflowError):
        return None


def format_time(unix: float) -> str:
    """Write Unix time as RFC 3339 in UTC, whole seconds, as Kubernetes does."""
    return datetime.fromtimestamp(int(unix), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_recent(at: float, within: float, now: float) -> bool:
    """Say whether `at` is less than `within` seconds ago; no if the clock was set back since."""
    return 0 <= now - at < within
