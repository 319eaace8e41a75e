"""Take the rules of Kubernetes and CNI out of iptables again, and leave all others.

kubelet, kube-proxy and the CNI plugins put all their rules into chains of their own, KUBE-* and CNI-*, and reach those by jumps from
the built-in chains. A node is started only where no such chain exists, so afterwards all of them are the node's. `footprint.py` calls it.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.cluster.commands import run

FAMILIES = {"iptables": "ip", "ip6tables": "ip6"}  # the command, and what nft calls its family
BUILT_IN_CHAINS = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
OWN_CHAIN = re.compile(r"(KUBE|CNI)-")
OWN_JUMP = re.compile(r"(?:^|\s)(?:-j|-g)\s+(?:KUBE|CNI)-")
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Table:
    """One table of an `iptables-save`: chains in order, and rules as the arguments that would append them."""

    name: str
    chains: tuple[str, ...]
    rules: tuple[str, ...]


def parse(saved: str) -> list[Table]:
    """The tables in the output of `iptables-save`."""
    tables: list[Table] = []
    name, chains, rules = "", list[str](), list[str]()
    for line in saved.splitlines():
        if line.startswith("*"):
            name, chains, rules = line[1:].strip(), [], []
        elif line.startswith(":"):
            chains.append(line[1:].split()[0])
        elif line.startswith("-A "):
            rules.append(line)
        elif line == "COMMIT":
            tables.append(Table(name, tuple(chains), tuple(rules)))
    return tables


def own_chains(table: Table) -> list[str]:
    """The chains of Kubernetes and CNI in a table."""
    return [chain for chain in table.chains if OWN_CHAIN.match(chain)]


def removal(saved: str) -> str:
    """Input for `iptables-restore --noflush` that removes our chains and the jumps to them; empty when there are none."""
    return "".join(_removal(table) for table in parse(saved))


def _removal(table: Table) -> str:
    chains = own_chains(table)
    if not chains:
        return ""
    foreign = [rule for rule in table.rules if not OWN_CHAIN.match(rule.split()[1])]
    lines = [f"-D {rule[3:]}" for rule in foreign if OWN_JUMP.search(rule)]
    lines += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
    return "\n".join([f"*{table.name}", *lines, "COMMIT"]) + "\n"


def tables_in_use() -> dict[str, list[str]]:
    """The tables that exist now, by family. iptables makes a table at its first use."""
    return {family: [table.name for table in parse(_save(family))] for family in _families()}


def chains_in_use() -> list[str]:
    """All chains of Kubernetes and CNI on the machine."""
    return [f"{family} {table.name} {chain}" for family in _families() for table in parse(_save(family)) for chain in own_chains(table)]


def remove_own(tables_before: dict[str, list[str]]) -> None:
    """Remove our chains and rules, and the tables that were not there before if no rule has been put into them since."""
    for family in _families():
        script = removal(_save(family))
        if script:
            run([f"{family}-restore", "--noflush", "--wait", "10"], timeout_seconds=SECONDS, text_in=script)
        for table in parse(_save(family)):
            if table.name not in tables_before.get(family, []):
                _remove_table(FAMILIES[family], table.name)


def _remove_table(family: str, table: str) -> None:
    """Remove an nftables table that holds nothing but the empty chains that iptables makes; the legacy variant has none such."""
    if shutil.which("nft") is None:
        return
    tables = json.loads(run(["nft", "--json", "list", "tables", family], timeout_seconds=SECONDS))["nftables"]
    if not any(entry.get("table", {}).get("name") == table for entry in tables):
        return
    content = json.loads(run(["nft", "--json", "list", "table", family, table], timeout_seconds=SECONDS))["nftables"]
    if is_empty(content):
        run(["nft", "delete", "table", family, table], timeout_seconds=SECONDS)


def is_empty(content: Sequence[Mapping[str, Mapping[str, object]]]) -> bool:
    """Whether a table, as nft lists it, has only built-in chains that accept everything: no rule, no set, no chain of a user."""
    for entry in content:
        (kind, fields), *_ = entry.items()
        built_in = kind == "chain" and fields["name"] in BUILT_IN_CHAINS and fields.get("policy") == "accept"
        if kind not in ("metainfo", "table") and not built_in:
            return False
    return True


def _families() -> Iterator[str]:
    return (family for family in FAMILIES if shutil.which(f"{family}-save"))


def _save(family: str) -> str:
    return run([f"{family}-save"], timeout_seconds=SECONDS)
