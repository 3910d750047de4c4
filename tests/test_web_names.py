"""Names from outside, whatever they are, lead to files inside, or nowhere."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.web.files.names import found, inside, parts_of
from server.web.problems import Refused
from tests.web_site import at_home, folders_in, form, put, told

# Every one of these has opened a file on some server.
ATTACKS = [
    "../secret.txt",
    "..\\secret.txt",
    "../../../../../../../../etc/passwd",
    "..\\..\\..\\..\\windows\\win.ini",
    "....//....//secret.txt",
    "..././secret.txt",
    "a/../../secret.txt",
    "./../secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "\\\\server\\share\\a.txt",
    "\\\\?\\C:\\windows\\win.ini",
    "\\\\.\\PhysicalDrive0",
    "C:\\windows\\win.ini",
    "C:secret.txt",
    "C:/windows/win.ini",
    "file:///etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "CON",
    "nul.txt",
    "LPT1",
    "secret.txt::$DATA",
    "..%2fsecret.txt",
    "..%252fsecret.txt",
    "%2e%2e%2fsecret.txt",
    "%2e%2e/secret.txt",
    "..%c0%afsecret.txt",
    "..%ef%bc%8fsecret.txt",
    "..\u2215secret.txt",
    "\uff0e\uff0e/secret.txt",
    "..\x00/secret.txt",
    "a.png\x00.txt",
    "..;/secret.txt",
    "~/.ssh/id_rsa",
    "~root/.bashrc",
    "$HOME/secret.txt",
    "link/secret.txt",
    "link",
    "up",
    "up/secret.txt",
    "loop",
    "loop/loop/loop",
    "pipe",
    "",
    ".",
    "..",
    "...",
    " ",
    "a" * 5000,
    "/".join("a" * 400),
    "\n",
    "-rf",
]


def planted(tmp_path: Path) -> list[Path]:
    """Folders with links that lead out, and a secret all around them."""
    import os

    folders = folders_in(tmp_path)
    put(tmp_path / "secret.txt", "a secret")
    roots = [folders.output, folders.uploads, folders.temp, folders.user, folders.models("loras")]
    for root in roots:
        root.mkdir(parents=True)
        put(root.parent / "secret.txt", "a secret")
        (root / "link").symlink_to(tmp_path)
        (root / "up").symlink_to("..")
        (root / "loop").symlink_to("loop")
        os.mkfifo(root / "pipe")
    return roots


@pytest.mark.anyio
async def test_no_attack_reads_or_writes_anything_outside(tmp_path: Path):
    roots = planted(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("secret.txt")}
    async with at_home(tmp_path) as client:
        for attack in ATTACKS:
            quoted = attack.encode().hex()
            raw = "".join(f"%{quoted[at : at + 2]}" for at in range(0, len(quoted), 2)) or "%20"
            for path in (
                f"/view?filename={raw}",
                f"/view?filename={raw}&type=input&preview=webp",
                f"/view?filename=secret.txt&subfolder={raw}",
                f"/view?filename=secret.txt&type={raw}",
                f"/view?filename=secret.txt{raw}%20[input]",
                f"/view_metadata/loras?filename={raw}",
                f"/view_metadata/{raw}?filename=secret.txt",
                f"/experiment/models/preview/loras/0/{raw}",
                f"/experiment/models/preview/{raw}/0/secret.txt",
                f"/models/{raw}",
                f"/experiment/models/{raw}",
                f"/userdata?dir={raw}",
                f"/v2/userdata?path={raw}",
                f"/userdata/{raw}",
                f"/internal/files/{raw}",
                f"/workflow_templates/latentloom/{raw}.json",
                f"/workflow_templates/latentloom/{raw}.jpg",
            ):
                status, body = await told(client, "GET", path)
                assert status < 500, (path, body)
                assert "a secret" not in str(body), path
                assert "root:" not in str(body), path
            for method, path in (
                ("POST", f"/userdata/{raw}"),
                ("DELETE", f"/userdata/{raw}"),
                ("POST", f"/userdata/{raw}/move/mine.txt"),
                ("POST", f"/userdata/mine.txt/move/{raw}"),
            ):
                status, body = await told(client, method, path, data=b"x" if method == "POST" else None)
                assert status < 500, (path, body)
            if "\x00" not in attack and "\n" not in attack:
                for fields in ({}, {"overwrite": "1"}):
                    assert (await told(client, "POST", "/upload/image", **form(attack, b"x", **fields)))[0] < 500
                    place = {"subfolder": attack} | fields
                    assert (await told(client, "POST", "/upload/image", **form("secret.txt", b"x", **place)))[0] < 500
    inside_roots = tuple(str(root) for root in roots)
    assert {path: path.read_bytes() for path in before} == before
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not str(path).startswith(inside_roots)]
    assert {*outside} == {path for path in before if not str(path).startswith(inside_roots)}


@given(st.text() | st.text(alphabet="./\\:a\0~ ", max_size=20))
def test_a_name_that_is_not_refused_stays_inside(name: str):
    for new in (False, True):
        try:
            parts = parts_of(name, new)
        except Refused as refused:
            assert refused.status in (400, 403)
            continue
        path = Path("/srv/folder").joinpath(*parts)
        assert path.is_relative_to("/srv/folder")
        assert ".." not in path.parts


def test_the_folder_itself_may_be_a_link(tmp_path: Path):
    put(tmp_path / "real" / "a.txt")
    (tmp_path / "folder").symlink_to("real")
    assert found([tmp_path / "folder"], "a.txt") == tmp_path / "folder" / "a.txt"


def test_links_inside_a_folder_lead_on_inside_it(tmp_path: Path):
    put(tmp_path / "sub" / "a.txt")
    (tmp_path / "b.txt").symlink_to("sub/a.txt")
    assert found([tmp_path], "b.txt") == tmp_path / "b.txt"
    (tmp_path / "c.txt").symlink_to("/etc/hostname")
    with pytest.raises(Refused, match="link"):
        inside(tmp_path, "c.txt")
    assert inside(tmp_path, "c.txt", follow=True) == tmp_path / "c.txt"
