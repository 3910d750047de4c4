"""What the command line says of HTTP, and what becomes of it."""

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from server.web.access_log import AccessLog
from server.web.application import make_application
from server.web.foreign_flags import FLAGS
from server.web.keys import StatedKey, StatedKeys
from server.web.lock import Unlocked, lock
from server.web.options import WebOptions
from tests.web_site import ANN, BOB, folders_in, locked, put, site_in

pytestmark = pytest.mark.anyio


def options(**said: Any) -> WebOptions:
    return WebOptions.model_validate(said)


def test_only_this_machine_can_come_in_if_nothing_is_said():
    usual = options()
    assert (usual.listen, usual.port, usual.is_local) == (("127.0.0.1",), 8188, True)
    assert usual.limits.upload_bytes == 104_857_600
    assert usual.request_rate is None


def test_addresses_come_with_commas_or_one_by_one():
    assert options(listen="127.0.0.1, ::1").listen == ("127.0.0.1", "::1")
    assert options(listen=["[::1]", "localhost,127.0.0.2"]).is_local
    assert options(listen="").listen == ("0.0.0.0", "::")
    for beyond in ("0.0.0.0", "::", "192.168.1.5", "127.0.0.1,mybox", "localhost.evil.example"):
        assert not options(listen=beyond).is_local


@pytest.mark.parametrize(
    ("said", "told_of"),
    [
        ({"port": 65536}, "port"),
        ({"port": "http"}, "port"),
        ({"max_upload_size": 0}, "max_upload_size"),
        ({"max_upload_size": "nan"}, "max_upload_size"),
        ({"tls_keyfile": "key.pem"}, "--tls-certfile"),
        ({"enable_cors_header": "app.example"}, "https://app.example"),
        ({"enable_cors_header": "https://a b"}, "no origin"),
        ({"api_key": "short"}, "16 or more"),
        ({"api_key": "with spaces in the middle"}, "16 or more"),
        ({"requests_per_second": -1}, "requests_per_second"),
        ({"lisen": "::"}, "lisen"),
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, Any], told_of: str):
    with pytest.raises(ValidationError, match=told_of):
        options(**said)


def test_a_key_that_is_refused_is_not_shown():
    with pytest.raises(ValidationError) as refused:
        options(api_key="sésamesésamesésamesésame")
    assert "sésame" not in str(refused.value)
    assert ANN not in repr(options(api_key=ANN))


def test_origins_and_names_are_taken_over():
    origins = options(
        enable_cors_header="https://App.example/,http://localhost:3000", allowed_host="Mine.example"
    ).origins
    assert origins.allowed == {"https://app.example", "http://localhost:3000"}
    assert origins.answers_to("mine.example:8188")
    assert options(enable_cors_header="*").origins.admits("https://any.example", "localhost")
    assert options(listen="mybox").origins.answers_to("mybox:8188")


def test_folders_are_the_usual_ones_unless_others_are_stated(tmp_path: Path):
    usual = options().folders(tmp_path)
    assert (usual.output, usual.temp, usual.uploads) == (tmp_path / "output", tmp_path / "temp", tmp_path / "input")
    assert usual.user == tmp_path / "user" / "default"
    other = options(base_directory=tmp_path / "base", output_directory=tmp_path / "out", user_directory=tmp_path / "u")
    folders = other.folders(tmp_path, examples=tmp_path / "examples")
    assert (folders.output, folders.temp) == (tmp_path / "out", tmp_path / "base" / "temp")
    assert folders.inputs == (tmp_path / "base" / "input", tmp_path / "examples")
    assert folders.user == tmp_path / "u" / "default"


def test_the_door_stands_open_for_this_machine_alone():
    assert lock(options()).is_open
    assert lock(options(listen="0.0.0.0", insecure_no_auth=True)).is_open
    assert not lock(options(api_key=ANN)).is_open
    assert not lock(options(), StatedKeys([]), ring_has_keys=True).is_open
    assert not lock(options(listen="0.0.0.0"), StatedKeys([]), ring_has_keys=True).is_open
    assert not lock(options(listen="0.0.0.0", api_key=ANN)).is_open
    assert lock(options(), StatedKeys([]), ring_has_keys=False).is_open


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "192.168.1.5", "127.0.0.1,mybox", ""])
def test_others_may_not_come_in_while_there_is_no_key(listen: str):
    with pytest.raises(Unlocked, match="latentloom keys add NAME.*--insecure-no-auth"):
        lock(options(listen=listen), StatedKeys([]), ring_has_keys=False)


async def test_a_key_may_have_an_owner():
    (ann, bare, padded) = options(api_key=[f"ann={ANN}", BOB, "abcdefghijklmnopqrst=="]).api_key
    assert (ann.owner, bare.owner, padded.owner) == ("ann", "local", "local")
    ring = StatedKeys([ann, bare])
    assert await ring.verify(ANN) == ann
    assert await ring.verify(f"ann={ANN}") is None
    assert await ring.verify("") is None
    assert await ring.verify("\ud800") is None
    assert StatedKey.parse(BOB) == bare


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *names]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*made, *files], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


async def test_a_site_is_served_over_tls_of_today(tmp_path: Path, certificate: tuple[Path, Path]):
    context = options(tls_certfile=certificate[0], tls_keyfile=certificate[1]).tls()
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    server = TestServer(make_application(site_in(tmp_path, door=locked())), scheme="https")
    await server.start_server(ssl=context)
    try:
        async with ClientSession() as session:
            login = session.post(server.make_url("/login"), data={"key": ANN}, ssl=trusting, allow_redirects=False)
            async with login as answer:
                assert (answer.status, "Secure" in answer.headers["Set-Cookie"]) == (303, True)
    finally:
        await server.close()
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("broken", ["missing", "empty", "swapped", "other"])
def test_files_that_are_no_certificate_are_told(tmp_path: Path, certificate: tuple[Path, Path], broken: str):
    cert, key = certificate
    pair = {
        "missing": (tmp_path / "missing.pem", key),
        "empty": (put(tmp_path / "empty.pem", b""), key),
        "swapped": (key, cert),
        "other": (cert, put(tmp_path / "other.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")),
    }[broken]
    with pytest.raises(ValueError, match="pem"):
        options(tls_certfile=pair[0], tls_keyfile=pair[1]).tls()


# The rest


async def test_the_log_of_requests_keeps_keys_to_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    put(folders_in(tmp_path).of("ann").output / "a.txt")
    application = make_application(site_in(tmp_path, door=locked()))
    server = TestServer(application)
    await server.start_server(access_log_class=AccessLog)
    with caplog.at_level("INFO"):
        async with ClientSession() as session:
            url = server.make_url(f"/view?filename=a.txt&key={ANN}")
            async with session.get(url) as answer:
                assert answer.status == 200
        await server.close()
    assert "127.0.0.1 ann" in caplog.text
    assert "/view?filename=a.txt" in caplog.text
    assert ANN not in caplog.text


def test_flags_of_the_protocols_list_are_known():
    names = {flag.name for flag in FLAGS} | {name.replace("_", "-") for name in WebOptions.model_fields}
    assert len(FLAGS) == len({flag.name for flag in FLAGS})
    assert {"gpu-only", "fast", "cache-lru", "listen", "enable-cors-header"} <= names
    assert len(names) > 80
