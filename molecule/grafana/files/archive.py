#!/usr/bin/env python3
"""Pack the stand-in for Grafana as Grafana packs itself; `--path` only says where. The same bytes
every time."""

import io
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from lab.state import share_dir  # noqa: E402  (the path above has to come first)

VERSION = "99.0.0"
FILES = {
    "bin/grafana": (Path(__file__).with_name("stand_in.py").read_bytes(), 0o755),
    "conf/defaults.ini": (b"", 0o644),
    "public/README": (b"This is a stand-in for Grafana, made for tests of Modelyard.\n", 0o644),
    "VERSION": (VERSION.encode(), 0o644),
}


def packed() -> bytes:
    """Return the archive."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, (content, mode) in FILES.items():
            entry = tarfile.TarInfo(f"grafana-v{VERSION}/{name}")
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue()


path = share_dir() / f"grafana/grafana-{VERSION}-stand-in.tar"
if sys.argv[1:] == ["--path"]:
    print(path)
elif not path.exists() or path.read_bytes() != packed():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed())
    print(f"{path} was written")
