"""Units of the host's systemd.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from ansible.module_utils.modelyard_host import ServiceError, read_text, run, write_atomically

UNITS = "/etc/systemd/system"
TRIED_UNITS = "/run/systemd/system.control"
"""What lies here wins over UNITS, and a reboot forgets it: units of a release that is not known to
be good yet."""


def systemctl(*arguments: str, timeout: float = 180.0) -> str:
    """Run systemctl; raises ServiceError with its message when it fails."""
    done = run(["systemctl", *arguments], timeout=timeout)
    if done.returncode != 0:
        raise ServiceError(
            f"systemctl {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


_PROPERTIES = "Id,LoadState,ActiveState,SubState,MainPID,UnitFileState,NRestarts,Result"
_known: dict[str, dict[str, str]] = {}


def unit_state(unit: str) -> dict[str, str]:
    """Return the properties of a unit that activation needs. Raises ServiceError."""
    if unit in _known:
        return _known[unit]
    shown = run(["systemctl", "show", f"--property={_PROPERTIES}", unit]).stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


@contextlib.contextmanager
def one_look(units: list[str]) -> Iterator[None]:
    """Ask systemd once for all of these units; within, `unit_state` says what it was then.

    For reading only. Raises ServiceError.
    """
    shown = run(["systemctl", "show", f"--property={_PROPERTIES}", *units]).stdout if units else ""
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in shown.strip().split("\n\n")
    ]
    # Another name of a unit (an alias) is asked for on its own.
    _known.update(
        (unit, block) for unit, block in zip(units, blocks, strict=False) if block.get("Id") == unit
    )
    try:
        yield
    finally:
        _known.clear()


def directives(content: str) -> dict[tuple[str, str], list[str]]:
    """Return what a unit file tells systemd: by section and key, the values in their order.

    Comments, descriptions and the order of different keys change nothing (systemd.syntax(7)).
    """
    found: dict[tuple[str, str], list[str]] = {}
    section = ""
    # A line that ends in a backslash continues, past comments, on the next one.
    for line in re.sub(r"\\\n(?:[#;].*\n)*", " ", content).splitlines():
        key, _, value = line.partition("=")
        if line.startswith("["):
            section = line
        elif line and line[0] not in "#;" and key not in ("Description", "Documentation"):
            found.setdefault((section, key), []).append(value)
    return found


def try_units(units: dict[str, str]) -> None:
    """Have systemd use these units, {name: content}, until `keep_units` or the next boot.

    Raises ServiceError.
    """
    os.makedirs(TRIED_UNITS, exist_ok=True)
    for name, content in units.items():
        write_atomically(os.path.join(TRIED_UNITS, name), content)
    systemctl("daemon-reload")


def keep_units(units: dict[str, str]) -> None:
    """Install units, {name: content}, so that a boot starts them.

    What is there already is not written again.

    Raises ServiceError.
    """
    for name, content in units.items():
        path = os.path.join(UNITS, name)
        if read_text(path) != content:
            write_atomically(path, content)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(TRIED_UNITS, name))
    systemctl("daemon-reload")
    systemctl("enable", "--quiet", *units)


def uninstall(*units: str) -> None:
    """Stop and disable units and take their files away. Raises ServiceError."""
    systemctl("disable", "--now", "--quiet", *units)
    delete_unit_files(*units)
    systemctl("daemon-reload")


def delete_unit_files(*units: str) -> None:
    """Delete units, those that are tried and those that are kept."""
    for unit in units:
        for directory in (UNITS, TRIED_UNITS):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, unit))
