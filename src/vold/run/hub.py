"""What the hub's client raises."""

from __future__ import annotations


def hub_errors() -> tuple[type[Exception], ...]:
    """Errors of a hub that is away, is cut off, refuses, or may not be asked.

    The client's own errors are those of answers; one of a connection comes from the HTTP library below it, which is an
    ancestor of the client's and has had several names.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    of_connections = HfHubHTTPError.__mro__[1]
    return of_connections, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError


def first_line(error: Exception) -> str:
    """The class and the first line of an error.

    Example:
        >>> first_line(OSError("gone\\nfor good"))
        'OSError: gone'
    """
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
