"""The one exception that is shown to a user as a single line."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names it and says what to do.

    The commands print it and exit with status 2. Library callers may catch it as a ValueError.
    """
