"""The admin socket of HAProxy, the front end of the gateway.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import os
import socket

from ansible.module_utils.modelyard_host import ServiceError


class Door:
    """HAProxy's admin socket: the gateway's front end."""

    SOCKET = "/run/modelyard-haproxy/admin.sock"
    BACKEND = "gateway"

    def exists(self) -> bool:
        """Return whether the socket is there, as it is while HAProxy runs."""
        return os.path.exists(self.SOCKET)

    def ask(self, command: str) -> str:
        """Send one command to the admin socket and return the answer. Raises ServiceError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            try:
                client.connect(self.SOCKET)
            except OSError as error:
                raise ServiceError(
                    f"the front end's admin socket {self.SOCKET}: {error.strerror}"
                ) from error
            client.sendall(f"{command}\n".encode())
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
        return answer.decode().strip()

    def set_state(self, slot: str, state: str) -> None:
        """Set a slot to ready, drain or maint. Raises ServiceError."""
        answer = self.ask(f"set server {self.BACKEND}/{slot} state {state}")
        if answer:
            raise ServiceError(f"the front end refused `{slot} {state}`: {answer}")

    def rows(self) -> list[dict[str, str]]:
        """Return HAProxy's statistics, one row for each frontend, backend and server. Raises
        ServiceError.
        """
        lines = self.ask("show stat").lstrip("# ").splitlines()
        names = lines[0].split(",")
        return [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]

    def administered(self) -> dict[tuple[str, str], int]:
        """Return what was set for each server by hand or by a program, by backend and server: the
        bits of `srv_admin_state` (HAProxy's management guide, "show servers state"). Its state in
        `rows` does not tell of a drain while it is down. Raises ServiceError.
        """
        lines = self.ask("show servers state").splitlines()
        names = next((line.lstrip("# ").split() for line in lines if line.startswith("#")), [])
        rows = [dict(zip(names, line.split(), strict=False)) for line in lines]
        return {
            (row["be_name"], row["srv_name"]): int(row["srv_admin_state"])
            for row in rows
            if row.get("srv_admin_state", "").isdigit()
        }

    def slot(self, slot: str) -> dict[str, str]:
        """Return HAProxy's statistics row of a slot. Raises ServiceError."""
        for row in self.rows():
            if row.get("pxname") == self.BACKEND and row.get("svname") == slot:
                return row
        raise ServiceError(f"the front end has no slot {self.BACKEND}/{slot}")

    def release(self) -> str | None:
        """Return the release id of the running configuration, from its `description`.

        Raises ServiceError.
        """
        for line in self.ask("show info").splitlines():
            if line.startswith("description:"):
                return os.path.basename(line.split(":", 1)[1].strip())
        return None
