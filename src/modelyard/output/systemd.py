"""Text for systemd's unit files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

_PLAIN = re.compile(r"[\w./:=,+@-]+", re.ASCII)


def fill_words(words: Sequence[str], given: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a plan's command line with what only the host knows: placeholders of `given` become
    their words, if any.
    """
    return [filled for word in words for filled in given.get(word, [word])]


def systemd_word(word: str) -> str:
    """One word of a command line or a list of paths: quoted if it is not plain, its `%` and `$`
    meant literally.

    The rules are those of systemd.service(5), "Command lines", whose quoting knows C's escapes as
    JSON does.
    """
    if _PLAIN.fullmatch(word):
        return word
    return json.dumps(word, ensure_ascii=False).replace("%", "%%").replace("$", "$$")
