"""The one exception that is shown to a user as a single line."""

import errno

# Of an OSError: the disk is full, over its quota, or cannot be written. The user can fix that and resume.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that names it and says what to do.

    The commands print it and exit with status 2. Library callers may catch it as a ValueError.
    """


def one_line(reason: object) -> str:
    """A message as one line, without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(str(reason).split()))
