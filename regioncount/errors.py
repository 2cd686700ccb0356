"""The exception for invalid input, which is shown to the user as a single line."""

import errno
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import TextIO

# Values of `errno` for a disk that is full, over its quota or not writable. The user can fix these and resume.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class InputError(ValueError):
    """The user's input is invalid. The message is one line that says what is wrong, where, and what to do.

    The commands print the message and exit with status 2. Library callers may catch it as a ValueError.
    """


def raised_by_signal(error: BaseException) -> bool:
    """Return whether a handler of a signal raised an exception, and not the code that it interrupted.

    Submitit's handler raises SystemExit in a job that Slurm preempts, for example.
    """
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))


def how_to_install(package: str, extra: str | None = None) -> str:
    """Return how to install a package, for the end of a message.

    Args:
        package: The package.
        extra: The extra of this project that has it, if there is one.
    """
    with_uv = f"uv sync --extra {extra}" if extra else f"uv pip install {package}"
    return f"run `{with_uv}` or, without uv, `pip install {package}`"


def one_line(reason: object, limit: int | None = None) -> str:
    """Return a message as one line, with each unprintable character replaced by "?".

    Args:
        reason: The message.
        limit: The number of characters after which it is cut; see `shorten`.
    """
    line = "".join(character if character.isprintable() else "?" for character in " ".join(str(reason).split()))
    return line if limit is None else shorten(line, limit)


def shorten(text: str, limit: int) -> str:
    """Return a text that is cut after at most `limit` characters, at the end of a word if possible, and ends with "..."."""
    if len(text) <= limit:
        return text
    cut = text[: limit + 1].rpartition(" ")[0].rstrip(" ,;:.")
    return f"{cut if 2 * len(cut) > limit else text[:limit]}..."


def say(text: str, file: TextIO | None = None) -> bool:
    """Print a line if possible. A closed pipe or a terminal without a character does not stop the command.

    Args:
        text: The text.
        file: Where to print; standard output by default.

    Returns:
        False if the text could not be printed, other than because the reader of a pipe has closed it.
    """
    stream = file or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except BrokenPipeError:  # Python flushes the file again at exit
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # ValueError: the file is closed
        return False
    return True
