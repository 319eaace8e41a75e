"""From a request's path and body to the question how long its answer will be; pure.

Bodies are described as in the engine itself (`alise_contract/describe.py`). The picker knows no API keys, so it asks without a tenant: the
replica decides about shares and classes when the request arrives. `picker.py` calls it.
"""

import json
from typing import Final

from alise_contract.describe import Description, Endpoint, describe
from alise_contract.names import CONTRACT_VERSION
from alise_contract.v1 import admission_pb2 as pb

# A longer body is sent on undescribed: its length says little about its answer's, and it would be parsed between two other requests.
MAX_DESCRIBED_BYTES: Final = 256 * 1024
_ENDPOINTS: Final = {
    Endpoint.CHAT_COMPLETIONS: pb.ENDPOINT_CHAT_COMPLETIONS,
    Endpoint.COMPLETIONS: pb.ENDPOINT_COMPLETIONS,
    Endpoint.RESPONSES: pb.ENDPOINT_RESPONSES,
    Endpoint.MESSAGES: pb.ENDPOINT_MESSAGES,
}
_BY_PATH: Final = {endpoint.value: endpoint for endpoint in _ENDPOINTS}
# Requests that wait for a replica, and wake one: those that vLLM 0.32 answers with tokens or vectors. Probes and scans of paths do neither.
GENERATING: Final = frozenset(_BY_PATH) | {
    "/v1/chat/completions/batch",
    "/cohere/v2/chat",
    "/inference/v1/generate",
    "/generative_scoring",
    "/invocations",
    "/v1/systemone",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/embeddings",
    "/v2/embed",
    "/pooling",
    "/classify",
    "/score",
    "/v1/score",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
}


def generates(method: str, path: str) -> bool:
    """Returns whether such a request is worth a replica of its own."""
    return method == "POST" and path.partition("?")[0] in GENERATING


def is_described(method: str, path: str) -> bool:
    """Returns whether the body of such a request says how long its answer will be."""
    return method == "POST" and path.partition("?")[0] in _BY_PATH


def described(path: str, body: bytes) -> Description:
    """Returns what a body asks for; of one that is not understood, nothing but the endpoint OTHER. Never raises."""
    if len(body) > MAX_DESCRIBED_BYTES:
        return Description(Endpoint.OTHER)
    try:
        return describe(_BY_PATH.get(path.partition("?")[0], Endpoint.OTHER), json.loads(body))
    except (ValueError, RecursionError):
        return Description(Endpoint.OTHER)


def question_of(description: Description) -> pb.AdmitRequest:
    """Returns the question about the length of the answer."""
    return pb.AdmitRequest(
        contract_version=CONTRACT_VERSION,
        endpoint=_ENDPOINTS.get(description.endpoint, pb.ENDPOINT_OTHER),
        model=description.model,
        prompt=description.prompt,
        prompt_chars=description.prompt_chars,
        turns=description.turns,
        max_tokens=min(description.max_tokens, (1 << 32) - 1),
        min_tokens=description.min_tokens,
        n=description.n,
        structured=description.structured,
        conversation=description.conversation,
        conversation_now=description.conversation_now,
        conversation_previous=description.conversation_previous,
        temperature=description.temperature,
    )
