"""Check whether W&B's server can be used."""

import base64
import netrc
import os
import queue
import ssl
import threading
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from regioncount.errors import one_line

ANSWER_TIMEOUT = 3  # seconds


def find_obstacle(settings: Any) -> str | None:
    """Return the reason why W&B's server cannot be used; None if it answers a small query in time.

    Args:
        settings: W&B's settings.
    """
    key = api_key(settings)
    if not key and not settings.identity_token_file:
        return "no API key is configured"
    query = Request(f"{settings.base_url}/graphql", b'{"query": "{ viewer { id } }"}', {"Content-Type": "application/json"})
    if key:
        query.add_unredirected_header("Authorization", "Basic " + base64.b64encode(f"api:{key}".encode()).decode())
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def send() -> None:
        try:
            urlopen(query, timeout=ANSWER_TIMEOUT).close()
            answers.put(None)
        except HTTPError as error:
            answers.put(f"HTTP status {error.code}" if error.code in (401, 403) or error.code >= 500 else None)
        except Exception as error:
            # W&B may trust certificates that Python does not: let it try.
            is_certificate = isinstance(getattr(error, "reason", None), ssl.SSLError)
            answers.put(None if is_certificate else one_line(error) or type(error).__name__)

    # In a thread, because looking up a host name has no timeout.
    threading.Thread(target=send, daemon=True).start()
    try:
        return answers.get(timeout=ANSWER_TIMEOUT)
    except queue.Empty:
        return f"no answer within {ANSWER_TIMEOUT} seconds"


def api_key(settings: Any) -> str | None:
    """Return the API key from W&B's settings or the user's netrc file; None if there is none.

    Args:
        settings: W&B's settings.
    """
    if settings.api_key:
        return settings.api_key
    for file in [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]:
        with suppress(OSError, netrc.NetrcParseError):
            if entry := netrc.netrc(os.path.expanduser(file)).authenticators(urlsplit(settings.base_url).netloc):
                return entry[2]
    return None
