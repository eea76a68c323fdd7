"""Base roots and package layers: what hosts lie on, cached by content and never changed once
made.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from lab.state import LabError, cache_dir, locked
from lab.system import lower_layers_in_use, run

RELEASES = ("bookworm", "trixie")
INCLUDED = "systemd,systemd-sysv,dbus,python3,python3-apt,sudo,iproute2,ca-certificates,curl,procps,openssh-server"
FRESH_DAYS = 1
"""A base carries the package lists of its day, and hosts do not fetch newer ones; mirrors drop
superseded packages."""

KEEP_BYTECODE = Path(__file__).with_name("keep_bytecode.py")

NETWORKD = """\
[Match]
Name=host0
[Network]
LinkLocalAddressing=no
Address={address}/24
Gateway={gateway}
"""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", re.DOTALL)


def ensure_base(release: str) -> Path:
    """Return a base root of a Debian release; make it if there is none or only an old one.

    Raises:
        LabError: it cannot be made, and there is no older one to use instead.
    """
    if release not in RELEASES:
        raise LabError(f"no release '{release}'. The lab knows: {', '.join(RELEASES)}")
    bases = cache_dir() / "bases"
    prefix = f"{release}-{_recipe_hash(release)}-"
    with locked(bases / ".lock"):
        made = sorted(bases.glob(f"{prefix}*"))
        if made and _age_days(made[-1]) < FRESH_DAYS:
            return made[-1]
        base = bases / f"{prefix}{int(time.time())}"
        print(
            f"lab: making a {release} base root in {base} (once a day, about half a minute)",
            flush=True,
        )
        try:
            _make(release, base)
        except LabError as error:
            if not made:
                raise
            print(f"lab: using the older {made[-1].name}: {error}", flush=True)
            return made[-1]
        _remove_unused(made)
        # Other clones may need other recipes; what none of them made lately is left over.
        _remove_unused(old for old in bases.glob("*-*-*") if _age_days(old) > FRESH_DAYS)
    return base


def _mirrors(release: str) -> list[str]:
    """Return the package sources that the environment names; without any, mmdebstrap takes Debian's
    own.
    """
    mirror = os.environ.get("MODELYARD_DEBIAN_MIRROR")
    security = os.environ.get("MODELYARD_DEBIAN_SECURITY_MIRROR")
    sources = (
        [f"deb {mirror} {release} main", f"deb {mirror} {release}-updates main"] if mirror else []
    )
    return sources + ([f"deb {security} {release}-security main"] if security else [])


def _controller_certificates() -> list[str]:
    """Return the certificates this machine trusts; some networks inspect TLS under a root of their
    own.
    """
    bundle = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    return _CERTIFICATE.findall(bundle.read_text()) if bundle.exists() else []


def _recipe_hash(release: str) -> str:
    """Hash everything that decides a base's content: how it is made, from where, the
    certificates.
    """
    making = inspect.getsource(_make) + inspect.getsource(_prepare)
    recipe = [
        making,
        INCLUDED,
        KEEP_BYTECODE.read_text(),
        *_mirrors(release),
        *_controller_certificates(),
    ]
    return hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]


def _make(release: str, base: Path) -> None:
    new = base.with_name(f".new-{base.name}")
    shutil.rmtree(new, ignore_errors=True)
    for leftover in base.parent.glob(".new-*"):  # of a run that was killed; we hold the lock
        shutil.rmtree(leftover)
    sources = _mirrors(release)
    run("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--skip=cleanup/apt/lists",
        f"--include={INCLUDED}", release, new, *sources)  # fmt: skip
    _prepare(new)
    new.rename(base)


def _prepare(root: Path) -> None:
    """Turn a fresh Debian into a host's base: reachable, quick to boot, doing nothing on its
    own.
    """
    for path in (
        *root.glob("etc/ssh/ssh_host_*"),
        root / "etc/resolv.conf",
        root / "var/lib/dbus/machine-id",
    ):
        path.unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("")
    (root / "srv/lab").mkdir()
    (root / "etc/ssh/sshd_config.d/lab.conf").write_text("HostKey /etc/ssh/ssh_host_ed25519_key\n")
    # A host that is thrown away needs no fsync after every package.
    (root / "etc/dpkg/dpkg.cfg.d/lab").write_text("force-unsafe-io\n")
    systemctl = ("systemctl", f"--root={root}")
    run(*systemctl, "enable", "--quiet", "systemd-networkd.service", "ssh.service")
    (root / "var/cache/lab-python").mkdir(mode=0o700)
    for customization in root.glob("etc/python3.*/sitecustomize.py"):
        shutil.copyfile(KEEP_BYTECODE, customization)
    # They would hold dpkg's lock at a time of their own choosing.
    run(*systemctl, "mask", "--quiet", "apt-daily.timer", "apt-daily-upgrade.timer")
    shipped = set(_CERTIFICATE.findall((root / "etc/ssl/certs/ca-certificates.crt").read_text()))
    extra = [
        certificate for certificate in _controller_certificates() if certificate not in shipped
    ]
    for number, certificate in enumerate(extra):
        (root / f"usr/local/share/ca-certificates/controller-{number}.crt").write_text(certificate)
    if extra:
        run("chroot", root, "update-ca-certificates")
    # Else each host spends seconds on it with its first package.
    run("chroot", root, "apt-cache", "gencaches")
    # uv and Python's own TLS read it; without it they trust only what they bring along.
    bundle = "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"
    (root / "etc/environment").write_text(f"{bundle}\n")
    (root / "etc/systemd/system.conf.d").mkdir()
    (root / "etc/systemd/system.conf.d/lab.conf").write_text(
        f"[Manager]\nDefaultEnvironment={bundle}\n"
    )


def newest_packages(release: str) -> Path | None:
    """Return the layer of packages that earlier hosts downloaded, if any.

    Call it under `packages_lock`.
    """
    layers = sorted((cache_dir() / "packages").glob(f"{release}-*"))
    return layers[-1] if layers else None


def packages_lock() -> Path:
    """Return the lock for making, removing and mounting layers: an unmounted one may be removed."""
    return cache_dir() / "packages/.lock"


def harvest_packages(release: str, disk: Path) -> None:
    """Keep what a stopped host downloaded, as a new layer; a layer in use by others is never
    changed.
    """
    downloaded = list((disk / "upper/var/cache/apt/archives").glob("*.deb"))
    layers = cache_dir() / "packages"
    with locked(packages_lock()):
        newest = newest_packages(release)
        known = list((newest / "var/cache/apt/archives").glob("*.deb")) if newest else []
        fresh = {deb.name: deb for deb in downloaded}
        if set(fresh) <= {deb.name for deb in known}:
            return
        # One version of each package: file names are PACKAGE_VERSION_ARCHITECTURE.deb.
        replaced = {name.split("_")[0] for name in fresh}
        kept = {deb.name: deb for deb in known if deb.name.split("_")[0] not in replaced}
        shutil.rmtree(layers / ".new", ignore_errors=True)
        archives = layers / ".new/var/cache/apt/archives"
        archives.mkdir(parents=True)
        for name, deb in {**kept, **fresh}.items():
            os.link(deb, archives / name)
        number = int(newest.name.rpartition("-")[2]) + 1 if newest else 1
        layer = layers / f"{release}-{number:08}"
        (layers / ".new").rename(layer)
        _remove_unused(old for old in layers.glob(f"{release}-*") if old != layer)


def _age_days(base: Path) -> float:
    """Return how old a base is; its name ends in the second it was made."""
    return (time.time() - int(base.name.rpartition("-")[2])) / 86400


def _remove_unused(candidates: Iterable[Path]) -> None:
    """Remove those that no mounted overlay lies on."""
    used = lower_layers_in_use()
    for path in candidates:
        if str(path) not in used:
            shutil.rmtree(path)
