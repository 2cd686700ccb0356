"""The one exception that is shown to a user as a single line."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names it and says what to do.

    The commands print it and exit with status 2. Library callers may catch it as a ValueError.
    """


def one_line(reason: object) -> str:
    """A message as one line, without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(str(reason).split()))
