"""How every module of Modelyard begins.

Not for code that the controller imports: it needs Ansible's part that runs on a target.
"""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

UMASK = 0o022
"""Debian's default. A module inherits the umask of the login, and hardened hosts set 027 or 077
(pam_umask, /etc/login.defs): directories of a release would then be closed to the service's user.
What must be closed is created with a mode of its own.
"""


def new_module(**options: Any) -> AnsibleModule:
    """Return the module whose parameters are `options`, those of AnsibleModule.

    From here on the files it makes have the same modes on every host.
    """
    os.umask(UMASK)
    return AnsibleModule(**options)
