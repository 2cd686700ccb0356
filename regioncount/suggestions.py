"""Messages for unknown names, with the most similar known one."""

import difflib
from collections.abc import Sequence


def unknown_choice(option: str, value: object, choices: Sequence[str]) -> str:
    """Return the message for a value that is not among the choices, with a suggestion if one of them is similar."""
    return f"{option}={value}: no such choice; choose one of {', '.join(choices)}{suggest(value, choices)}"


def suggest(value: object, choices: Sequence[str]) -> str:
    """Return the end of a message that suggests the choice most similar to a value; empty if none is similar."""
    similar = most_similar(str(value), choices)
    return f"; did you mean {similar}?" if similar else ""


def most_similar(name: str, choices: Sequence[str]) -> str | None:
    """Return the choice that is most similar to a name, such as "model" for "modle" or "learning_rate" for "lr"."""
    others = [choice for choice in choices if choice != name]
    similar = difflib.get_close_matches(name, others, n=1) or [choice for choice in others if is_initials(name, choice)]
    return similar[0] if similar else None


def is_initials(text: str, name: str) -> bool:
    """Return whether a text consists of the first letters of the words of a name: "lr" of "learning_rate"."""
    words = name.split("_")
    return len(words) > 1 and text == "".join(word[:1] for word in words)
