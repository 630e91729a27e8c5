"""The exception for user errors, and a helper for its messages."""


class UserError(ValueError):
    """An error that the user can fix; the message contains the config key or file, the problem and the fix.

    ``mmf_run`` and the commands of mmf_flava print the message without a traceback and exit with code 2.
    """


def join_first(names: list[str], count: int = 3) -> str:
    """Join the first ``count`` names with commas; an ellipsis replaces the rest."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
