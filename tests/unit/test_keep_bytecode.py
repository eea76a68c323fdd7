"""What makes Python on a lab host keep the bytecode of Ansible's modules (lab/keep_bytecode.py)."""

from __future__ import annotations

import marshal
import subprocess
import sys
import zipfile
from pathlib import Path

LAB = Path(__file__).resolve().parents[2] / "lab"
ASK = """\
import sys
sys.path[:0] = sys.argv[1:3]
import keep_bytecode
keep_bytecode.DIRECTORY = sys.argv[3]
import module
print(module.answer)
"""


def test_bytecode_is_kept_and_used_unless_it_is_damaged(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with zipfile.ZipFile(tmp_path / "modules.zip", "w") as archive:
        archive.writestr("module.py", "answer = 'compiled'\n")

    def answer() -> str:
        command = [sys.executable, "-c", ASK, str(LAB), str(tmp_path / "modules.zip"), str(kept)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert answer() == "compiled", "nothing can be kept where there is no directory"
    kept.mkdir()
    assert answer() == "compiled"
    (file,) = kept.iterdir()
    file.write_bytes(marshal.dumps(compile("answer = 'kept'", "module.py", "exec")))
    assert answer() == "kept"
    file.write_bytes(b"damaged")
    assert answer() == "compiled"
    assert marshal.loads(file.read_bytes()).co_names == ("answer",)
