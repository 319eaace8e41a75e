"""Generate the protobuf code of the contract: `make proto`. `generate(folder)` is what the freshness test compares with."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "engine_image"
PACKAGE = "alise_contract/v1"


def generate(target: Path) -> None:
    """Write *_pb2.py, *_pb2.pyi and *_pb2_grpc.py for every .proto of the contract below `target`.

    Raises RuntimeError with protoc's exit code when a .proto does not compile (protoc prints the line).
    """
    from grpc_tools import protoc

    well_known = Path(protoc.__file__).parent / "_proto"
    files = sorted(str(path.relative_to(SOURCE)) for path in (SOURCE / PACKAGE).glob("*.proto"))
    arguments = ["protoc", f"-I{SOURCE}", f"-I{well_known}", f"--python_out={target}", f"--pyi_out={target}", f"--grpc_python_out={target}"]
    code = protoc.main(arguments + files)
    if code:
        raise RuntimeError(f"protoc exited with {code}")


if __name__ == "__main__":
    generate(SOURCE)
    print(*sorted(path.name for path in (SOURCE / PACKAGE).glob("*_pb2*")), sep="\n", file=sys.stderr)
