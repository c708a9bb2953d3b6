"""The one exception a user is meant to read: a single line, shown without a traceback, exit code 2."""


class TodmError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to type."""
