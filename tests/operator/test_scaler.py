"""KEDA's scaler over TLS, asked by a real gRPC client as KEDA asks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from alise_contract.v1 import externalscaler_pb2 as pb
from alise_contract.v1.engine_control_pb2 import PredictedWork, StatusReport
from alise_contract.v1.externalscaler_pb2_grpc import ExternalScalerStub
from alise_operator.autoscaling import Pool, Rule, metric_seconds
from alise_operator.demand import Demand, Demands
from alise_operator.predicted_work import total, view_work
from alise_operator.scaler import METRIC, serving_scaler
from alise_operator.settings import ConfigError
from alise_operator.spec_types import MAX_REPLICAS

SECONDS = 5.0
REF = pb.ScaledObjectRef(namespace="default", name="tiny")
BUSY = Demand(150.0, 60.0, True)


def write_certificate(folder: Path, serial: int = 1) -> bytes:
    """A certificate for localhost that signs itself, as `tls.crt` and `tls.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scaler")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    text = certificate.public_bytes(pem)
    (folder / "tls.crt").write_bytes(text)
    (folder / "tls.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return text


@asynccontextmanager
async def client(port: int, authority: bytes) -> AsyncIterator[ExternalScalerStub]:
    """A client as KEDA's, which trusts this authority."""
    # No pool of connections, so that each client makes a handshake of its own.
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(authority), options) as channel:
        yield ExternalScalerStub(channel)


@asynccontextmanager
async def keda(folder: Path, demands: Demands) -> AsyncIterator[ExternalScalerStub]:
    authority = write_certificate(folder)
    async with serving_scaler(demands, folder, "127.0.0.1", 0) as port, client(port, authority) as stub:
        yield stub


async def test_keda_reads_the_metric_its_target_and_whether_there_is_work(tmp_path: Path) -> None:
    demands = Demands()
    demands.set("default", "tiny", BUSY)
    async with keda(tmp_path, demands) as stub:
        (spec,) = (await stub.GetMetricSpec(REF, timeout=SECONDS)).metricSpecs
        asked = pb.GetMetricsRequest(scaledObjectRef=REF, metricName=spec.metricName)
        (value,) = (await stub.GetMetrics(asked, timeout=SECONDS)).metricValues
        active = await stub.IsActive(REF, timeout=SECONDS)
    assert (spec.metricName, spec.targetSizeFloat, spec.targetSize) == (METRIC, 60.0, 60)
    assert (value.metricName, value.metricValueFloat, value.metricValue) == (METRIC, 150.0, 150)
    assert active.result


async def test_the_greatest_work_of_the_most_pods_fits_into_the_answer(tmp_path: Path) -> None:
    absurd = view_work(StatusReport(work=PredictedWork(backlog_seconds=1e308, offered_load=1e308)))
    assert absurd is not None
    rule = Rule(least=1, most=100, target_seconds=3600.0, stabilization_seconds=300.0, idle_seconds=600.0)
    pool = Pool(MAX_REPLICAS, MAX_REPLICAS, total([absurd] * MAX_REPLICAS))
    demands = Demands()
    demands.set("default", "tiny", Demand(metric_seconds(pool, rule), rule.target_seconds, True))
    async with keda(tmp_path, demands) as stub:
        (value,) = (await stub.GetMetrics(pb.GetMetricsRequest(scaledObjectRef=REF), timeout=SECONDS)).metricValues
    assert value.metricValue == round(value.metricValueFloat) > 0


async def test_a_change_is_pushed_and_a_figure_that_changes_nothing_is_not(tmp_path: Path) -> None:
    demands = Demands()
    demands.set("default", "tiny", Demand(0.0, 60.0, False))
    async with keda(tmp_path, demands) as stub:
        stream = stub.StreamIsActive(REF, timeout=SECONDS)
        first = await stream.read()
        demands.set("default", "tiny", Demand(0.1, 60.0, False))
        await asyncio.sleep(0)
        demands.set("default", "tiny", BUSY)
        second = await stream.read()
        stream.cancel()
    assert (first.result, second.result) == (False, True)


async def test_a_call_counts_as_asked_and_an_open_stream_that_is_told_of_changes_does_not(tmp_path: Path) -> None:
    seconds = 0.0
    demands = Demands(lambda: seconds)
    demands.set("default", "tiny", Demand(0.0, 60.0, False))
    async with keda(tmp_path, demands) as stub:
        stream = stub.StreamIsActive(REF, timeout=SECONDS)
        await stream.read()
        seconds = 100.0
        demands.set("default", "tiny", BUSY)
        await stream.read()
        assert demands.unasked_seconds("default", "tiny") == 100.0
        await stub.IsActive(REF, timeout=SECONDS)
        assert demands.unasked_seconds("default", "tiny") == 0.0
        stream.cancel()


@pytest.mark.parametrize("call", ["IsActive", "GetMetricSpec", "GetMetrics"])
async def test_a_resource_that_is_not_known_yet_is_unavailable_so_that_keda_keeps_its_pods(tmp_path: Path, call: str) -> None:
    async with keda(tmp_path, Demands()) as stub:
        asked = pb.GetMetricsRequest(scaledObjectRef=REF) if call == "GetMetrics" else REF
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await getattr(stub, call)(asked, timeout=SECONDS)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "the predicted work of AliseEngine default/tiny is not known" in (failed.value.details() or "")


async def test_a_stream_ends_when_its_resource_is_gone(tmp_path: Path) -> None:
    demands = Demands()
    demands.set("default", "tiny", BUSY)
    async with keda(tmp_path, demands) as stub:
        stream = stub.StreamIsActive(REF, timeout=SECONDS)
        await stream.read()
        demands.forget("default", "tiny")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stream.read()
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_for_a_name_that_does_not_exist_leaves_nothing_behind(tmp_path: Path) -> None:
    demands = Demands()
    async with keda(tmp_path, demands) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.StreamIsActive(REF, timeout=SECONDS).read()
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(KeyError):
        demands.next_change("default", "tiny")


async def test_a_client_that_trusts_another_authority_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = write_certificate(other)
    write_certificate(tmp_path)
    async with serving_scaler(Demands(), tmp_path, "127.0.0.1", 0) as port, client(port, stranger) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.IsActive(REF, timeout=SECONDS)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "certificate" in (failed.value.details() or "").lower()


async def test_a_renewed_certificate_is_used_for_new_connections(tmp_path: Path) -> None:
    demands = Demands()
    demands.set("default", "tiny", BUSY)
    before = write_certificate(tmp_path)
    async with serving_scaler(demands, tmp_path, "127.0.0.1", 0) as port:
        async with client(port, before) as stub:
            assert (await stub.IsActive(REF, timeout=SECONDS)).result
        after = write_certificate(tmp_path, serial=2)
        async with client(port, after) as stub:
            assert (await stub.IsActive(REF, timeout=SECONDS)).result


async def test_a_folder_without_a_certificate_is_a_bad_setting_that_says_what_to_mount(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ALISE_SCALER_TLS_DIR=.*No such file.*mount a Secret of type kubernetes.io/tls"):
        async with serving_scaler(Demands(), tmp_path, "127.0.0.1", 0):
            pass
