"""Make what a release needs, in dist/release: `make release VERSION=0.1.0 IMAGE_REGISTRY=host/name RELEASE_URL=https://…`.

RELEASE_URL is where the files will be published; the krew manifest of the kubectl plugin names it. IMAGES=0 leaves the images' bills of
materials out, for a machine that cannot build images. PUSH=1 pushes the images that were built.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.cluster import image_build
from tests.cluster.errors import ClusterError, UnsupportedMachine
from tests.tools.release import checks, files, images, krew, plugin

ROOT: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = ROOT / "dist" / "release"


def main(environ: Mapping[str, str] = os.environ, root: Path = ROOT, folder: Path = FOLDER) -> int:
    """Write the release, or say why not. Returns the exit status."""
    version, where = environ.get("VERSION", ""), environ.get("IMAGE_REGISTRY", "")
    texts = [(root / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "pyproject.toml")]
    address = environ.get("RELEASE_URL", "")
    wrong = [*checks.problems(version, where, *texts), *checks.of_address(address), *checks.of_tree(root)]
    if wrong:
        for problem in wrong:
            print(problem, file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files.write(root, version, where, folder)
    registry = files.registry_of(version, where)
    try:
        if (root / "operator" / "kubectl_alise").is_dir():
            plugin.write_wheel(root, checks.committed_at(root), folder)
            krew.write(root, version, address, folder)
        if environ.get("IMAGES") != "0":
            built = image_build.build()
            images.write_bills(built, checks.committed_at(root), folder)
            if environ.get("PUSH") == "1":
                images.push(built, registry)
    except (ClusterError, UnsupportedMachine) as error:
        print(error, file=sys.stderr)
        return 1
    files.write_sums(folder)
    print((folder / files.SUMS).read_text(encoding="utf-8"), end="")
    cuda = registry.name(image_build.CUDA.name)
    print(*image_build.how_to_build_cuda(cuda), f"  docker push {cuda}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
