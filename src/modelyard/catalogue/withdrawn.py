"""Releases that must run nowhere, because what was published under their version is not to be
trusted. Older releases with known vulnerabilities are below a floor instead (`Release.floor`).

An entry needs a public source. Of Redis, HAProxy, Prometheus and Alertmanager there is none: they
come from the distribution, with its versions. No release of an engine of ours is known to be
compromised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from modelyard.kinds import release_order

_STOLEN = "malware that steals keys was published under this version ({source})"

_LITELLM = _STOLEN.format(source="BerriAI/litellm issues 24512 and 24518, March 2026")
_LIGHTNING = _STOLEN.format(source="GHSA-w37p-236h-pfx3, April 2026")
_MISTRALAI = _STOLEN.format(source="mistralai/platform-docs-public pull request 490, May 2026")
_TELNYX = _STOLEN.format(source="pypa/advisory-database pull request 271, 2026")

WITHDRAWN: Mapping[str, Mapping[str, str]] = {
    "litellm": {
        "1.82.7": _LITELLM,
        "1.82.8": _LITELLM,
        # No advisory was found in November 2026. The index has 1.107.0rc2 and 1.108.0 and no
        # 1.107.0, as it has no 1.82.7: whoever has a file of that name has it from elsewhere.
        "1.107.0": "the package index does not have this version, though later ones (November"
        " 2026): a package of that name comes from elsewhere",
    },
    "lightning": {"2.6.2": _LIGHTNING, "2.6.3": _LIGHTNING},
    "pytorch-lightning": {"2.6.2": _LIGHTNING, "2.6.3": _LIGHTNING},
    "mistralai": {"2.4.6": _MISTRALAI},
    "telnyx": {"4.87.1": _TELNYX, "4.87.2": _TELNYX},
}
"""By package of the Python package index, as the index writes its name, and by version: why. They
are packages of ours, and others whose later releases a lock may hold one day."""


def withdrawn(package: str, version: str) -> str:
    """Return why a release of a package must not run; empty if nothing is known against it."""
    entries = WITHDRAWN.get(re.sub(r"[-_.]+", "-", package).lower(), {})
    order = release_order(version)
    same = (why for bad, why in entries.items() if order and release_order(bad) == order)
    return next(same, "")


def withdrawn_among(packages: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return those of the packages (name, version) that must not be installed, with the reason."""
    found = ((name, version, withdrawn(name, version)) for name, version in packages)
    return [one for one in found if one[2]]
