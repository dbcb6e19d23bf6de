"""Generates every message and stub from `protos/`: `make protos`. With `--check`, fails when the committed code differs.

Two sets come out, for the two gRPC stacks of this repository:

* `narupa_shared/gen/`: protobuf's own runtime and grpcio, for servers and for anything per frame or per input event;
* `narupa_shared/sdk/`: betterproto2 and grpclib, for the Python client and for control calls between services.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools

PROTOS = Path(__file__).parent
OUT = PROTOS.parent / "shared" / "src" / "narupa_shared"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
# Generated modules import each other by proto package; they live below this one.
HOME = "narupa_shared.gen"


def protoc(arguments: list[str], files: list[Path]) -> None:
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{PROTOS}",
        f"-I{WELL_KNOWN}",
        *arguments,
        *map(str, files),
    ]
    # betterproto2's plugin formats its output with the ruff that stands beside this Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    subprocess.run(command, check=True, cwd=PROTOS, env={**os.environ, "PATH": path})


def generate(out: Path) -> None:
    """Writes both sets below `out`."""
    gen, sdk = out / "gen", out / "sdk"
    for folder in (gen, sdk):
        folder.mkdir(parents=True)
    files = sorted(path.relative_to(PROTOS) for path in PROTOS.rglob("*.proto"))
    protoc([f"--python_out={gen}", f"--pyi_out={gen}"], files)
    with_service = [path for path in files if re.search(r"^service ", (PROTOS / path).read_text(), re.M)]
    protoc([f"--grpc_python_out={gen}"], with_service)
    for module in gen.rglob("*.py*"):
        text = re.sub(r"^(from|import) (narupa|nanover)\b", rf"\1 {HOME}.\2", module.read_text(), flags=re.M)
        module.write_text(text)
    for folder in [gen, *(path for path in gen.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    versioned = [path for path in files if path.parent.name == "v1"]
    plugin = Path(sys.executable).parent / "protoc-gen-python_betterproto2"
    protoc(
        [
            f"--plugin=protoc-gen-python_betterproto2={plugin}",
            f"--python_betterproto2_out={sdk}",
            "--python_betterproto2_opt=client_generation=async",
            "--python_betterproto2_opt=server_generation=none",
        ],
        versioned,
    )


def differences(left: Path, right: Path) -> list[str]:
    """The relative paths of files that are not the same on both sides."""
    names = {
        path.relative_to(side)
        for side in (left, right)
        for path in side.rglob("*.py*")
        if "__pycache__" not in path.parts
    }
    return sorted(
        str(name)
        for name in names
        if not (
            (left / name).exists() and (right / name).exists() and filecmp.cmp(left / name, right / name, shallow=False)
        )
    )


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        generate(made)
        if "--check" in sys.argv:
            changed = [f"{part}/{name}" for part in ("gen", "sdk") for name in differences(made / part, OUT / part)]
            for name in changed:
                print(f"protos: {name} is not what protos/ generates; run `make protos` and commit", file=sys.stderr)
            return 1 if changed else 0
        for part in ("gen", "sdk"):
            shutil.rmtree(OUT / part, ignore_errors=True)
            shutil.copytree(made / part, OUT / part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
