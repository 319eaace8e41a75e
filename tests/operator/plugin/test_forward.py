"""How the page of the operator is reached, without a cluster; test_on_control_plane.py has a real one."""

import subprocess
from typing import IO, Any

import pytest

from kubectl_alise.forward import ForwardedOperator

POD = {
    "metadata": {"name": "alise-operator-1"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}


class InterruptedPipe:
    """What kubectl prints, if the person presses Ctrl-C before it does."""

    def readline(self) -> str:
        raise KeyboardInterrupt


class InterruptedKubectl:
    """A cluster with an operator, and a port-forward that is real but for its pipe."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def get(self, *_: str) -> Any:
        return {"items": [POD]}

    def start(self, *_: str, errors: IO[str]) -> Any:
        process = subprocess.Popen(["sleep", "60"], text=True, stderr=errors)
        process.stdout = InterruptedPipe()  # type: ignore[assignment]
        self.started.append(process)
        return process


def test_ctrl_c_while_it_connects_leaves_no_kubectl_behind() -> None:
    kubectl = InterruptedKubectl()
    with pytest.raises(KeyboardInterrupt), ForwardedOperator(kubectl, "alise-system") as operator:  # type: ignore[arg-type]
        operator.start()
    assert [process.returncode is not None for process in kubectl.started] == [True]
