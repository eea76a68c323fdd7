#!/usr/bin/env python3
"""Have a real Ollama for the lab's hosts, packed as its publisher packs it.

The official archives are not in any package index, so the server is built from source by Go, for
the CPU only:

    SHARE/ollama/VERSION/  ollama-linux-ARCH.tar.zst, .tgz, sha256sum.txt (hosts see it below
                           /srv/lab)

Everything is checked: Go is a wheel locked by hash (lab/go.txt), Go itself checks the modules
against the public checksum database, and the headers that modules leave out come from the pinned
source of llama-cpp-python.

The first build takes minutes, later calls nothing. Exit status 75: it cannot be had on this machine
(no network, no compiler); a test that needs it is then skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.state import locked, share_dir  # the path above has to come first
from modelyard.controller import sources

VERSION = "0.17.4"
PACKAGE = "github.com/ollama/ollama"
# Archives of modules leave out directories named `vendor`; the headers in Ollama's are the ones
# vendored here, too.
HEADERS = {
    "sdist": "llama-cpp-python==0.3.36",
    "sha256": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
}
GO_LOCK = Path(__file__).with_name("go.txt")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
UNAVAILABLE = 75
NOTE = "Built from source by Go for Modelyard's lab: CPU only. This is not the official archive.\n"


class UnavailableError(Exception):
    """This machine lacks something that the build needs; no fault of ours."""


def recipe() -> str:
    """Return a hash of everything that decides the archive."""
    parts = [
        VERSION,
        str(HEADERS),
        GO_LOCK.read_text(),
        inspect.getsource(build),
        inspect.getsource(pack),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def run(
    command: list[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a program with its output on our stderr; raises CalledProcessError."""
    variables = {**os.environ, **(environment or {})}
    subprocess.run(
        ["nice", "-n", "5", *command], check=True, env=variables, cwd=cwd, stdout=sys.stderr
    )


def fetch(work: Path, environment: Mapping[str, str]) -> None:
    """Bring everything that comes from elsewhere into `work`. Raises UnavailableError."""
    try:
        if shutil.which("g++") is None:
            run(["apt-get", "update", "-qq"])
            run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "g++"])
        uv = Path(sys.executable).with_name("uv")
        python = ["--python", sys.executable]
        run(
            [
                str(uv),
                "pip",
                "install",
                *python,
                "--quiet",
                "--target",
                f"{work}/go",
                "--require-hashes",
                "-r",
                f"{GO_LOCK}",
            ]
        )
        (work / "headers").mkdir()
        archive = str(sources.fetch(HEADERS))
        run(
            [
                "tar",
                "-xzf",
                archive,
                "-C",
                f"{work}/headers",
                "--wildcards",
                "*/vendor/llama.cpp/vendor/*",
            ]
        )
        (work / "module").mkdir()
        run(["go", "mod", "init", "lab"], environment, work / "module")
        run(["go", "get", f"{PACKAGE}@v{VERSION}"], environment, work / "module")
    except (subprocess.CalledProcessError, OSError, sources.SourceError) as error:
        raise UnavailableError(str(error)) from error


def build(work: Path, environment: Mapping[str, str]) -> Path:
    """Return the root of the archive, with the server in bin/ and a place for GPU libraries in
    lib/.
    """
    (include,) = (work / "headers").glob("*/vendor/llama.cpp/vendor")
    # Go's own choice is `-O2 -g`; a server of tiny models need not be fast, and compiles in half
    # the time.
    flags = {"CGO_CPPFLAGS": f"-I{include}", "CGO_CFLAGS": "-O1", "CGO_CXXFLAGS": "-O1"}
    root = work / "root"
    (root / "lib/ollama").mkdir(parents=True)
    (root / "lib/ollama/README").write_text(NOTE)
    linked = f"-s -w -X {PACKAGE}/version.Version={VERSION}"
    command = ["go", "build", "-trimpath", "-ldflags", linked, "-o", f"{root}/bin/ollama", PACKAGE]
    run(command, {**environment, **flags}, work / "module")
    return root


def pack(root: Path, directory: Path, architecture: str) -> None:
    """Write the archives in both formats that Ollama was ever published in, and their checksums."""
    directory.mkdir(parents=True)
    names = {
        f"ollama-linux-{architecture}.tar.zst": "--zstd",
        f"ollama-linux-{architecture}.tgz": "--gzip",
    }
    owner = ["--owner=0", "--group=0", "--numeric-owner"]
    for name, compression in names.items():
        run(
            [
                "tar",
                "-C",
                str(root),
                *owner,
                compression,
                "-cf",
                str(directory / name),
                "bin",
                "lib",
            ]
        )
    lines = [f"{sources.sha256_of(directory / name)}  ./{name}\n" for name in names]
    (directory / "sha256sum.txt").write_text("".join(lines))
    (directory / ".recipe").write_text(recipe())


def have(directory: Path) -> bool:
    """Make sure that the archives are there; returns whether they were built now.

    Raises UnavailableError.
    """
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise UnavailableError(f"no recipe for {platform.machine()}")
    with locked(directory.with_name(".lock")):
        stamp = directory / ".recipe"
        if stamp.exists() and stamp.read_text() == recipe():
            return False
        for left in directory.parent.glob(".build.*"):  # by a build that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".build.") as name:
            work = Path(name)
            go = work / "go/go"
            environment = {
                "PATH": f"{go}/bin:{os.environ['PATH']}",
                "GOROOT": str(go),
                "GOTOOLCHAIN": "local",
                "GOPATH": f"{work}/modules",
                "GOCACHE": f"{work}/cache",
                "GOENV": "off",
                "GOFLAGS": "-modcacherw",
                "GOTELEMETRY": "off",
                "CGO_ENABLED": "1",
            }
            fetch(work, environment)
            pack(build(work, environment), work / "packed", architecture)
            shutil.rmtree(directory, ignore_errors=True)
            (work / "packed").rename(directory)
        return True


def main() -> int:
    """Have the archives and print where they are."""
    argparse.ArgumentParser(
        description="Have a real Ollama for the lab's hosts (built from source, CPU only)."
    ).parse_args()
    directory = share_dir() / "ollama" / VERSION
    try:
        built = have(directory)
    except UnavailableError as error:
        print(f"lab: Ollama {VERSION} cannot be had on this machine: {error}", file=sys.stderr)
        return UNAVAILABLE
    print(f"{directory}: {'built from source by Go, CPU only' if built else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
