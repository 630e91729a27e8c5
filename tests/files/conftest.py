import pytest

from mmf_flava.files import http_connection, http_request
from tests.files.hostile import HostileServer


@pytest.fixture
def short_limits(monkeypatch, downloads):
    monkeypatch.setattr(http_connection, "TIMEOUT", 0.4)
    monkeypatch.setattr(http_connection, "MINIMUM_BYTES", 5000)
    monkeypatch.setattr(http_request, "MAX_WAIT", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def serve():
    """Return ``serve(answer)``, which starts a server that ends with the test."""
    servers = []

    def start(answer, **options):
        servers.append(HostileServer(answer, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
