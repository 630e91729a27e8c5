"""The one exception that a user is meant to read, and how its sentence lists many entries."""


class UserError(ValueError):
    """A mistake that the user can mend: the message names the thing, the place and the remedy in one or two sentences.

    ``mmf_run`` and our command lines print the message alone, without a traceback, and exit with code 2.
    """


def some(names: list[str], count: int = 3) -> str:
    """The first of many offending entries, for a sentence."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
