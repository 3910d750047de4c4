import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click import BadParameter

from graph.entry_file import Label
from graph.store_folder import StoreFolder
from graph.store_index import StoreIndex
from nodes.codecs import CODEC
from server.quantities import AGE, SIZE, duration_text, size_text
from tests.commands import latentloom, saved

DAY = 86400.0


def fill(data: Path, *entries: tuple[str, int, float]) -> None:
    """Entries by class, size and days since their last use."""
    folder = StoreFolder(data / "store")
    with closing(StoreIndex(folder.index)) as index:
        for number, (class_name, size, _) in enumerate(entries):
            label = Label(bytes([number]) * 32, class_name, 2.0, 0.0)
            index.record([(label, folder.write(label, CODEC.encode((bytes(size),))))])
        for number, (_, _, days) in enumerate(entries):
            index._connection.execute(  # pyright: ignore[reportPrivateUsage]  # time passes
                "UPDATE entry SET used = used - ? WHERE key = ?", (days * DAY, bytes([number]) * 32)
            )


def left(data: Path) -> list[str]:
    """The classes of what is still kept."""
    with closing(StoreIndex(data / "store" / "index.sqlite3")) as index:
        return sorted(kept.class_name for kept in index.by_class() for _ in range(kept.entries))


def test_an_empty_store_says_so(tmp_path: Path):
    said = latentloom("cache", data=tmp_path)
    assert said.code == 0 and "nothing is kept yet" in said.out
    assert latentloom("cache", "clear", "--all", data=tmp_path).code == 0
    assert not list(tmp_path.iterdir())


def test_the_cache_shows_what_it_holds_by_class(tmp_path: Path):
    fill(tmp_path, ("Encode", 1000, 0), ("Decode", 3_000_000, 0), ("Encode", 2000, 0))
    said = latentloom("cache", data=tmp_path)
    first, folder, *table = said.out.splitlines()
    assert first.startswith("3.0 MB in 3 entries, not asked yet")
    assert folder == str(tmp_path / "store")
    assert [line.split()[0] for line in table[2:]] == ["Decode", "Encode"]
    assert table[3].split() == ["Encode", "3.8", "kB", "2", "2.4", "kB", "0", "4.0", "s"]


@pytest.mark.parametrize(
    ("words", "remaining"),
    [
        (["--all"], []),
        (["--class", "Decode"], ["Encode", "Encode"]),
        (["--older-than", "7d"], ["Decode", "Encode"]),
        (["--older-than", "36h", "--class", "Decode"], ["Decode", "Encode", "Encode"]),
        (["--larger-than", "1MB"], ["Encode", "Encode"]),
        (["--larger-than", "10MB"], ["Decode", "Encode", "Encode"]),
    ],
)
def test_the_cache_is_cleared_by_age_class_and_size(tmp_path: Path, words: list[str], remaining: list[str]):
    fill(tmp_path, ("Encode", 1000, 9), ("Decode", 3_000_000, 1), ("Encode", 2000, 0))
    said = latentloom("cache", "clear", *words, data=tmp_path)
    count = 3 - len(remaining)
    assert said.code == 0 and said.out.startswith(f"removed {count} {'entry' if count == 1 else 'entries'}")
    assert left(tmp_path) == remaining
    assert len(list(tmp_path.glob("store/entries/*/*"))) == len(remaining)


def test_clearing_finds_what_the_index_does_not_know(tmp_path: Path):
    fill(tmp_path, ("Encode", 1000, 0))
    (tmp_path / "store" / "index.sqlite3").unlink()
    assert latentloom("cache", "clear", "--all", data=tmp_path).out.startswith("removed 1 entry")
    assert not list(tmp_path.glob("store/entries/*/*"))


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "say what is to go"),
        (["--all", "--class", "Encode"], "say what is to go"),
        (["--class", "Decod"], "there are: Encode"),
        (["--older-than", "soon"], "write it like 7d"),
        (["--larger-than", "100 stone"], "write it like 500MB"),
    ],
)
def test_a_wrong_request_is_explained_and_nothing_goes(tmp_path: Path, words: list[str], answer: str):
    fill(tmp_path, ("Encode", 1000, 0))
    said = latentloom("cache", "clear", *words, data=tmp_path)
    assert said.code == 2 and answer in said.err
    assert left(tmp_path) == ["Encode"]


def test_the_cache_command_imports_no_torch(tmp_path: Path):
    fill(tmp_path, ("Encode", 1000, 0))
    program = (
        "import sys\nfrom server.__main__ import main\n"
        f"main(['--data', {str(tmp_path)!r}, 'cache'], standalone_mode=False)\n"
        "assert not {'torch', 'diffusers', 'PIL'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "house.png"}},
    "2": {
        "class_type": "ImageScale",
        "inputs": {"image": ["1", 0], "upscale_method": "lanczos", "width": 2048, "height": 2048, "crop": "disabled"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
}


@pytest.mark.parametrize(("store", "again"), [("disk", "1 run, 1 reused"), ("memory", "3 run"), ("none", "3 run")])
def test_only_a_store_on_disk_outlives_a_run(tmp_path: Path, store: str, again: str):
    first, second = (latentloom("run", saved(tmp_path, WORKFLOW), "--store", store, data=tmp_path) for _ in range(2))
    assert "3 run, 0 reused" in first.err and again in second.err
    assert first.files[0].read_bytes() == second.files[0].read_bytes()
    assert (tmp_path / "store").exists() == (store == "disk")


def test_a_store_keeps_within_the_bytes_it_was_given(tmp_path: Path):
    for size in ("0", "100kB"):
        said = latentloom("run", saved(tmp_path, WORKFLOW), "--store-bytes", size, data=tmp_path)
        assert said.code == 0
        assert sum(path.stat().st_size for path in tmp_path.glob("store/entries/*/*")) <= 100_000


def test_a_run_goes_on_where_nothing_can_be_kept(tmp_path: Path):
    (tmp_path / "store").write_text("in the way")
    said = latentloom("run", saved(tmp_path, WORKFLOW), data=tmp_path)
    assert said.code == 0 and len(said.files) == 1
    assert said.err.count("results are not kept on disk for now") == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [("7", 7), ("1kb", 1000), ("1.5 KiB", 1536), ("20GiB", 20 << 30), ("3M", 3 << 20), ("2TB", 2 * 10**12)],
)
def test_sizes_are_read(text: str, size: int):
    assert SIZE.convert(text, None, None) == size


@pytest.mark.parametrize(("text", "seconds"), [("7d", 604800), ("12h", 43200), ("30min", 1800), ("1.5w", 907200)])
def test_ages_are_read(text: str, seconds: int):
    assert AGE.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "-1", "d", "1 2", "7m", "inf", "1e3"])
def test_other_texts_are_no_ages(text: str):
    with pytest.raises(BadParameter):
        AGE.convert(text, None, None)


def test_quantities_are_shown_to_people():
    assert [size_text(size) for size in (0, 999, 1500, 10**9, 10**13)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "1.0 GB",
        "10.0 TB",
    ]
    assert [duration_text(seconds) for seconds in (0.04, 100, 600, 9000)] == ["0.0 s", "100.0 s", "10 min", "2.5 h"]
