"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """A mistake that the user can mend: the message names the thing, the place and the remedy in one or two sentences.

    ``mmf_run`` and our command lines print the message alone, without a traceback, and exit with code 2.
    """
