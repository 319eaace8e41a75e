"""What the cluster tool decides without touching the machine."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster import build, cgroups, images, iptables, machine, packages, programs, sources, state
from tests.cluster.errors import ClusterError, CommandFailed, UnsupportedMachine

DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


def test_every_stanza_of_a_sources_file_lists_source_packages_and_keeps_its_key() -> None:
    rewritten = sources.deb822_sources(DEB822)
    assert [line for line in rewritten.splitlines() if line.startswith("Types")] == ["Types: deb-src", "Types: deb-src"]
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in rewritten


def test_a_key_that_is_written_inside_the_stanza_is_kept_with_its_indentation() -> None:
    inline = "Types: deb\nURIs: http://m\nSuites: s\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n"
    assert sources.deb822_sources(inline) == inline.replace("Types: deb", "Types: deb-src")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            "deb http://m/debian bookworm main", "deb-src http://m/debian bookworm main\n", id="a binary line becomes a source line"
        ),
        pytest.param("deb [signed-by=/k.gpg] http://m b main", "deb-src [signed-by=/k.gpg] http://m b main\n", id="options are kept"),
        pytest.param("deb-src http://m b main", "deb-src http://m b main\n", id="a source line stays"),
        pytest.param("# deb http://m b main", "", id="a comment is dropped"),
        pytest.param("deb http://m b main\ndeb-src http://m b main", "deb-src http://m b main\n", id="the same source appears once"),
    ],
)
def test_classic_lists_are_rewritten(line: str, expected: str) -> None:
    assert sources.classic_sources(line) == expected


def test_a_disabled_stanza_is_left_out() -> None:
    assert sources.deb822_sources("Types: deb\nURIs: http://m\nSuites: s\nEnabled: no\n") == ""


def test_a_machine_without_package_sources_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no package source found in "):
        sources.private_lists(tmp_path / "apt", tmp_path / "private")


def test_only_packages_that_are_not_fully_installed_are_missing(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Package: runc\nStatus: install ok installed\n\nPackage: ipset\nStatus: deinstall ok config-files\n")
    assert packages.missing_packages(["runc", "ipset", "socat", "socat"], status) == ("ipset", "socat")


def test_apt_is_called_again_while_another_holds_the_lock_of_the_lists() -> None:
    outcomes = iter([CommandFailed(f"E: {packages.LISTS_LOCKED}/lock. It is held by process 7"), None])

    packages.retried(lambda: raised(next(outcomes)), every_seconds=0.0)

    assert not list(outcomes)


@pytest.mark.parametrize(("says", "for_seconds"), [("E: Unable to locate package runc", 60.0), (packages.LISTS_LOCKED, -1.0)])
def test_apt_is_not_called_again_for_another_failure_or_when_time_is_up(says: str, for_seconds: float) -> None:
    outcomes = iter([CommandFailed(says), None])

    with pytest.raises(CommandFailed, match=says):
        packages.retried(lambda: raised(next(outcomes)), for_seconds=for_seconds, every_seconds=0.0)

    assert list(outcomes) == [None]


def raised(error: Exception | None) -> None:
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        pytest.param('ID=debian\nVERSION_ID="12"\n', True, id="Debian 12"),
        pytest.param('ID=debian\nVERSION_ID="13"\n', False, id="another Debian"),
        pytest.param('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="12"\n', False, id="a relative of Debian"),
    ],
)
def test_only_debian_12_is_supported(release: str, expected: bool) -> None:
    assert packages.is_debian_12(release) is expected


networks = st.builds(
    lambda address, length: ipaddress.IPv4Network((address, length), strict=False),
    st.integers(min_value=0, max_value=2**32 - 1),
    st.integers(min_value=9, max_value=32),
)


@given(st.lists(networks, max_size=20))
def test_the_ranges_chosen_overlap_no_route_of_the_machine(routes: list[ipaddress.IPv4Network]) -> None:
    try:
        chosen = machine.free_ranges(routes)
    except UnsupportedMachine:
        assert len(routes) > 0
        return
    assert not any(route.overlaps(chosen.pods) or route.overlaps(chosen.services) for route in routes)


def test_a_machine_that_routes_every_candidate_is_told_so() -> None:
    with pytest.raises(UnsupportedMachine, match="overlaps a route"):
        machine.free_ranges([ipaddress.IPv4Network("10.0.0.0/8")])


SAVED = """\
# Generated by iptables-save
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:CNI-1234 - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A POSTROUTING -s 10.42.0.2/32 -m comment --comment "name: \\"alise\\" id: \\"1\\"" -j CNI-1234
-A KUBE-SERVICES -d 10.43.0.1/32 -j DNAT --to-destination 192.0.2.2:1
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
-A INPUT -p tcp -j ACCEPT
COMMIT
"""


def test_only_chains_of_kubernetes_and_cni_and_the_jumps_to_them_are_removed() -> None:
    assert iptables.removal(SAVED).splitlines() == [
        "*nat",
        '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-D POSTROUTING -s 10.42.0.2/32 -m comment --comment "name: \\"alise\\" id: \\"1\\"" -j CNI-1234',
        "-F KUBE-SERVICES",
        "-F CNI-1234",
        "-X KUBE-SERVICES",
        "-X CNI-1234",
        "COMMIT",
    ]


def test_nothing_is_to_be_removed_where_there_are_only_foreign_rules() -> None:
    foreign = "\n".join(line for line in SAVED.splitlines() if "KUBE" not in line and "CNI" not in line)
    assert iptables.removal(foreign) == ""


BASE_CHAIN = {"chain": {"family": "ip", "table": "nat", "name": "INPUT", "policy": "accept"}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param([{"metainfo": {}}, {"table": {"name": "nat"}}, BASE_CHAIN], True, id="built-in chains that accept everything"),
        pytest.param([BASE_CHAIN, {"rule": {"chain": "INPUT"}}], False, id="a rule"),
        pytest.param([{"chain": {"name": "mine"}}], False, id="a chain of somebody's own"),
        pytest.param([{"chain": {"name": "INPUT", "policy": "drop"}}], False, id="a policy that drops"),
        pytest.param([{"set": {"name": "allowed"}}], False, id="a set"),
    ],
)
def test_a_table_is_removed_only_when_it_is_empty(content: list[dict[str, dict[str, object]]], expected: bool) -> None:
    assert iptables.is_empty(content) is expected


def test_control_groups_of_both_versions_are_found() -> None:
    mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ntmpfs /tmp tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    assert cgroups.hierarchies(mounts) == [Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/unified")]


def test_packages_with_an_openapi_marker_are_found_and_examples_are_not(tmp_path: Path) -> None:
    for folder, marked in (
        ("pkg/apis/a", True),
        ("pkg/apis/b", False),
        ("pkg/testdata/c", True),
        ("staging/src/k8s.io/api/core/v1", True),
        ("staging/src/k8s.io/sample-apiserver/pkg/d", True),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "doc.go").write_text("// +k8s:openapi-gen=true\n" if marked else "package b\n")
    assert build.marked_packages(tmp_path) == ["k8s.io/kubernetes/pkg/apis/a", "k8s.io/kubernetes/vendor/k8s.io/api/core/v1"]


def test_a_written_archive_names_its_image_and_has_the_same_digest_every_time(tmp_path: Path) -> None:
    program = images.Program("/web", b"content")
    first = images.archive_images(images.write_archive(tmp_path / "a.tar", "docker.io/alise/web:1", program))
    second = images.archive_images(images.write_archive(tmp_path / "b.tar", "docker.io/alise/web:1", program))
    assert first == second
    assert list(first) == ["docker.io/alise/web:1"]


def test_an_archive_with_a_bare_tag_for_a_name_is_refused(tmp_path: Path) -> None:
    archive = images.write_archive(tmp_path / "a.tar", "dev", images.Program("/web", b"content"))
    with pytest.raises(ClusterError, match="calls its image 'dev'; give it a full name"):
        images.archive_images(archive)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("no archive")
    with pytest.raises(ClusterError, match="cannot be read as an image archive"):
        images.archive_images(tmp_path / "a.tar")


def test_the_listing_of_containerd_is_read_by_name_without_the_unnamed_images() -> None:
    listing = (
        "REF TYPE DIGEST SIZE PLATFORMS LABELS\n"
        "docker.io/alise/pause:1 application/vnd.oci.image.manifest.v1+json sha256:aa 1.0 KiB linux/amd64 -\n"
        "sha256:bb application/vnd.oci.image.manifest.v1+json sha256:aa 1.0 KiB linux/amd64 -\n"
    )
    assert images.parse_listing(listing) == {"docker.io/alise/pause:1": "sha256:aa"}


def test_an_assets_folder_without_an_api_server_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "etcd").write_text("")
    (tmp_path / "etcd").chmod(0o755)
    with pytest.raises(UnsupportedMachine, match="has no program 'kube-apiserver'"):
        programs.assets(tmp_path)


@pytest.mark.parametrize("name", ["", "owned", "../x", "A", "a" * 21, "-a"])
def test_a_cluster_name_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="is not usable"):
        state.named(name)
