"""The verb that looks at what is installed."""

from typing import Any


def doctor(json: bool = False) -> dict[str, Any]:
    """Say what is installed, what is missing, and what to type.

    Args:
        json: Print the result as JSON.
    """
    from todm.doctor import as_text, examine

    result = examine()
    if not json:
        print(as_text(result))
    return result
