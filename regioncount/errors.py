"""The one exception that is shown to a user as a single line."""

import errno

# The `errno` of a disk that is full, over its quota or not writable, which the user can fix before resuming.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class InputError(ValueError):
    """An input of the user cannot be used. The message is one line: what is wrong, where, and what to do.

    The commands print the message and exit with status 2. Library callers may catch it as a ValueError.
    """


def one_line(reason: object) -> str:
    """Return a message as one line, with "?" for each character that cannot be printed."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(str(reason).split()))
