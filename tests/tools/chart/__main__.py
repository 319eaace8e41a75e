"""Write the Helm chart from the manifests: `make chart`. A test says when it is stale."""

from tests.tools.chart.chart import FOLDER, MANIFESTS, files, links


def main() -> None:
    written, linked = files(MANIFESTS), links(MANIFESTS)
    for path in FOLDER.rglob("*"):
        if (path.is_file() or path.is_symlink()) and str(path.relative_to(FOLDER)) not in written:
            path.unlink()
    for name, text in written.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name, target in linked.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    print(f"wrote {len(written)} files to manifests/chart")


if __name__ == "__main__":
    main()
