"""Messages: output may fail, commands may not."""

import io
import os
import subprocess
import sys
import textwrap

import pytest

from regioncount.errors import say


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_character_that_a_terminal_lacks_is_escaped(encoding):
    content = io.BytesIO()
    terminal = io.TextIOWrapper(content, encoding=encoding, write_through=True)
    say("4.2 ± 0.1 → gap", terminal)
    printed = content.getvalue().decode(encoding)
    assert printed.startswith("4.2 ")
    assert printed.endswith(" gap\n")


def test_a_closed_file_is_no_error():
    file = io.StringIO()
    file.close()
    say("text", file)


def test_a_closed_pipe_does_not_change_the_exit_status():
    code = """
        import time
        from regioncount.errors import say
        for _ in range(3):
            say("a line of text")
            time.sleep(0.2)
        print("this cannot be flushed either")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr.read() == b""
