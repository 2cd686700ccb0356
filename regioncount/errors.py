"""The exception for invalid input, which is shown to the user as a single line."""

import errno

# Values of `errno` for a disk that is full, over its quota or not writable. The user can fix these and resume.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class InputError(ValueError):
    """The user's input is invalid. The message is one line that says what is wrong, where, and what to do.

    The commands print the message and exit with status 2. Library callers may catch it as a ValueError.
    """


def one_line(reason: object) -> str:
    """Return a message as one line, with each unprintable character replaced by "?"."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(str(reason).split()))
