"""Write the password of a Redis as redis_exporter reads it: usage: passwords.py ADDRESS USER.

From a credential to the unit's own directory in memory, so that no argument list and no release
shows it.
"""

import json
import os
import sys

address, user = sys.argv[1:]
with open(
    os.path.join(os.environ["CREDENTIALS_DIRECTORY"], "PASSWORD"), encoding="utf-8"
) as handle:
    password = handle.read().strip()
# 1.45 looks a password up by the address alone, later versions by the address with the user.
passwords = {f"redis://{place}": password for place in (address, f"{user}@{address}")}
with open(
    os.path.join(os.environ["RUNTIME_DIRECTORY"], "passwords.json"), "w", encoding="utf-8"
) as handle:
    json.dump(passwords, handle)
