"""The interval of a measured accuracy, computed and written in one way wherever it is shown."""

import math

Z_95 = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


def wilson(accuracy: float, images: int) -> tuple[float, float]:
    """Compute the 95% Wilson score interval of an accuracy.

    E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference". It
    stays within 0 and 1 and is right for few images, where the plain normal interval is not.

    Args:
        accuracy: share of images guessed right, 0 to 1.
        images: how many images it was measured on, at least 1.

    Returns:
        Low and high end, shares.

    Raises:
        ValueError: there are no images.
    """
    if images < 1:
        raise ValueError("an accuracy on no images has no interval")
    right = round(accuracy * images) / images
    z2 = Z_95 * Z_95 / images
    middle = (right + z2 / 2) / (1 + z2)
    half = Z_95 * math.sqrt(right * (1 - right) / images + z2 / (4 * images)) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def percent(share: float) -> str:
    """Write a share for people, in the same way everywhere: `89.7%`."""
    return f"{share:.1%}"


def percent_range(low: float, high: float) -> str:
    """Write an interval of shares for people: `84.1 to 93.5%`."""
    return f"{100 * low:.1f} to {percent(high)}"


def in_words(accuracy: float, images: int | None) -> str:
    """Write an accuracy with its interval: `89.1% (95% interval 83.4 to 93.0%, 165 images)`.

    Args:
        accuracy: share of images guessed right, 0 to 1.
        images: how many images it was measured on; without that, there is no interval.
    """
    if not images:
        return percent(accuracy)
    low, high = wilson(accuracy, images)
    counted = f"{images:,} image{'' if images == 1 else 's'}"
    return f"{percent(accuracy)} (95% interval {percent_range(low, high)}, {counted})"
