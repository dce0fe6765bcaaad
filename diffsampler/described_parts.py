"""Where two descriptions by `diffsampler.fingerprint.describe` part, as far as their text tells."""

import re

HEAD = re.compile(r"[\w.]*[({]")
OPENING, CLOSING, QUOTES = "([{", ")]}", "'\""
SEPARATORS = {")": "=", "}": ": "}
DEPTH = 2  # arguments of a part, and what these hold by name: data y, prior of mu
MISSING = "not there"


def unlike_entries(then: str, now: str, depth: int = DEPTH) -> dict[str, tuple[str, str]] | None:
    """What differs by its name, such as `data y`, as it was and is; None where the whole does."""
    before, after = _entries(then), _entries(now)
    if before is None or after is None or before[0] != after[0]:
        return None
    found: dict[str, tuple[str, str]] = {}
    for name in {**before[1], **after[1]}:
        pair = before[1].get(name, MISSING), after[1].get(name, MISSING)
        if pair[0] == pair[1]:
            continue
        inner = unlike_entries(*pair, depth - 1) if depth > 1 and all(one.startswith("{") for one in pair) else None
        if inner is None:
            found[name] = pair
        else:
            found |= {name if key == name else f"{name} {key}": each for key, each in inner.items()}
    return found


def _entries(text: str) -> tuple[str, dict[str, str]] | None:
    """The name of a part, or none, and its arguments or entries by name; None of another text."""
    head = HEAD.match(text)
    separator = SEPARATORS.get(text[-1:])
    if head is None or separator is None:
        return None
    found = {}
    for piece in _split(text[head.end() : -1]):
        name, sign, value = piece.partition(separator)
        if not sign:
            return None
        found[name] = value
    return head[0], found


def _split(text: str) -> list[str]:
    """At commas that are within no brackets and no quotes."""
    pieces, start, depth, quote = [], 0, 0, ""
    for k, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote and text[k - 1] != "\\" else quote
        elif sign in QUOTES:
            quote = sign
        elif sign in OPENING or sign in CLOSING:
            depth += 1 if sign in OPENING else -1
        elif sign == "," and depth == 0:
            pieces.append(text[start:k])
            start = k + 2
    return [*pieces, text[start:]] if text else []
