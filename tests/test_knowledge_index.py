from __future__ import annotations

import asyncio
import ctypes
import os
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from builtin_context import context_for
from hypothesis import given
from hypothesis import strategies as st

from tornado_live.tools.builtin import knowledge
from tornado_live.tools.builtin.knowledge import search
from tornado_live.tools.knowledge import folders
from tornado_live.tools.knowledge import index as index_module
from tornado_live.tools.knowledge.folders import Found, Unreadable, look, read
from tornado_live.tools.knowledge.index import Index, IndexUnusable, Report
from tornado_live.tools.knowledge.query import closest, distance
from tornado_live.tools.result import ToolCode, ToolError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "docs"
    made.mkdir()
    for name in ("cats", "dogs", "fish"):
        write(made / f"{name}.md", f"# {name.title()}\n\nAll about {name}.\n")
    return made


def write(path: Path, text: str | bytes, *, at: int = 1) -> None:
    """A file that was last changed long ago, at second `at`."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, ns=(at * 10**9, at * 10**9))


def index_of(folder: Path, *more: Path) -> Index:
    return Index(folder.parent / "kept" / "index.db", [folder, *more], 900)


def counts(report: Report) -> tuple[int, int, int]:
    return report.added, report.changed, report.removed


def remarks(report: Report) -> list[str]:
    return [str(remark) for remark in report.remarks]


def files(index: Index, query: str) -> list[str]:
    return [answer.file for answer in index.search(query, 5)]


def test_only_what_is_new_changed_or_gone_is_read_again(folder: Path) -> None:
    index = index_of(folder)
    assert counts(index.update()) == (3, 0, 0)
    assert counts(index.update()) == (0, 0, 0)
    write(folder / "cats.md", "# Cats\n\nThey purr.\n", at=2)
    write(folder / "birds.md", "# Birds\n\nThey sing.\n")
    (folder / "fish.md").unlink()
    assert counts(index.update()) == (1, 1, 1)
    assert files(index, "purr") == ["docs/cats.md"]
    assert files(index, "sing") == ["docs/birds.md"]
    assert files(index, "fish") == []


def test_a_file_that_was_only_touched_is_not_changed(folder: Path) -> None:
    index = index_of(folder)
    index.update()
    os.utime(folder / "cats.md", ns=(5, 5))
    assert counts(index.update()) == (0, 0, 0)


def test_a_change_that_keeps_time_and_size_is_seen_while_the_time_is_fresh(folder: Path) -> None:
    index = index_of(folder)
    (folder / "cats.md").write_text("# Cats\n\nThey purr.\n")
    facts = (folder / "cats.md").stat()
    index.update()
    (folder / "cats.md").write_text("# Cats\n\nThey hiss.\n")
    os.utime(folder / "cats.md", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert counts(index.update()) == (0, 1, 0)
    assert files(index, "hiss") == ["docs/cats.md"]


def test_a_moved_file_is_found_under_its_new_name_alone(folder: Path) -> None:
    index = index_of(folder)
    index.update()
    (folder / "cats.md").rename(folder / "lions.md")
    assert counts(index.update()) == (1, 0, 1)
    assert files(index, "all about cats") == ["docs/lions.md", "docs/dogs.md", "docs/fish.md"]


def test_the_index_is_read_by_its_owner_only_and_found_again_by_the_next_process(folder: Path) -> None:
    index_of(folder).update()
    kept = folder.parent / "kept"
    assert kept.stat().st_mode & 0o077 == 0
    assert (kept / "index.db").stat().st_mode & 0o077 == 0
    assert counts(index_of(folder).update()) == (0, 0, 0)


def test_what_cannot_be_read_as_it_should_is_told_and_fails_nothing(folder: Path) -> None:
    write(folder / "latin.txt", "Ein Käfig für Tiere".encode("cp1252"))
    write(folder / "wide.txt", "Ein Käfig".encode("utf-16"))
    write(folder / "page.html", '<meta charset="iso-8859-2"><p>Kočka'.encode("iso-8859-2"))
    write(folder / "odd.html", b'<meta charset="punycode"><p>Dog')
    write(folder / "binary.md", b"\0\1\2")
    write(folder / "huge.txt", b"x" * (folders.LARGEST_FILE + 1))
    os.mkfifo(folder / "pipe.md")
    (folder / "nowhere.md").symlink_to(folder / "nothing.md")
    (folder / "itself.md").symlink_to(folder / "itself.md")
    index = index_of(folder, folder.parent / "missing", ROOT / "setup.py")
    report = index.update()
    assert sorted(remarks(report)) == [
        "docs/binary.md: holds bytes that no text has; left out",
        "docs/huge.txt: is larger than 2 MB; left out",
        "docs/itself.md: is a link that leads nowhere; left out",
        "docs/latin.txt: is not UTF-8; read as Windows-1252",
        "docs/nowhere.md: is not there",
        "docs/pipe.md: is no regular file; left out",
        "missing: is not there",
        "setup.py: is none of .htm, .html, .markdown, .md, .txt; left out",
    ]
    assert report.files == 7
    assert sorted(files(index, "käfig")) == ["docs/latin.txt", "docs/wide.txt"]
    assert files(index, "kočka") == ["docs/page.html"]
    assert sorted(remarks(index.update())) == sorted(remarks(report))  # told as long as it is so


def test_a_file_that_may_not_be_read_is_told_and_comes_back_when_it_may(folder: Path) -> None:
    index = index_of(folder)
    index.update()
    secret = folder / "cats.md"
    write(secret, "# Cats\n\nA secret.\n", at=2)
    secret.chmod(0)
    with no_superuser():
        report = index.update()
    assert remarks(report) == ["docs/cats.md: may not be read; left out"]
    assert files(index, "all about cats") == ["docs/dogs.md", "docs/fish.md"]
    secret.chmod(0o600)
    assert counts(index.update()) == (1, 0, 0)
    assert files(index, "secret") == ["docs/cats.md"]


@contextmanager
def no_superuser() -> Iterator[None]:
    """Whoever runs the tests as root may read everything, unless this thread gives that up for a while."""
    if os.geteuid() != 0:
        yield
        return
    library = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", 0x20080522, 0)
    before = ctypes.create_string_buffer(24)
    assert library.capget(ctypes.create_string_buffer(header), before) == 0
    numbers = list(struct.unpack("6I", before.raw))
    numbers[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert library.capset(ctypes.create_string_buffer(header), struct.pack("6I", *numbers)) == 0
    try:
        yield
    finally:
        assert library.capset(ctypes.create_string_buffer(header), before.raw) == 0


def test_no_link_leads_out_of_the_folders(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write(outside / "private.md", "# Private\n\nA walrus.\n")
    (folder / "link.md").symlink_to(outside / "private.md")
    (folder / "linked").symlink_to(outside)
    (folder / "up").symlink_to("../outside")
    (folder / "inner").mkdir()
    (folder / "inner" / "round.md").symlink_to(folder / "linked" / "private.md")
    index = index_of(folder)
    report = index.update()
    assert sorted(remarks(report)) == [
        f"docs/{name}: leads out of the folders; left out"
        for name in ("inner/round.md", "link.md", "linked", "up")
    ]
    assert files(index, "walrus") == []


def test_a_file_that_becomes_a_link_between_look_and_read_is_refused(folder: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    write(private / "cats.md", "walrus")
    [cats, *_], _ = look([folder])
    (folder / "cats.md").unlink()
    (folder / "cats.md").symlink_to(private / "cats.md")
    with pytest.raises(Unreadable):
        read(cats, [folder])
    folder.rename(tmp_path / "moved")
    folder.symlink_to(private)
    with pytest.raises(Unreadable, match="leads out of the folders"):
        read(Found(folder / "cats.md", "docs/cats.md", 0, 0), [tmp_path / "moved"])


def test_links_within_the_folders_are_followed_and_loops_end(folder: Path) -> None:
    (folder / ".current").mkdir()
    write(folder / ".current" / "birds.md", "# Birds\n\nThey sing.\n")
    (folder / "birds.md").symlink_to(".current/birds.md")  # as Kubernetes mounts a ConfigMap
    (folder / "again.md").symlink_to("cats.md")
    (folder / "deep").mkdir()
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "here").symlink_to(".")
    index = index_of(folder)
    report = index.update()
    assert (report.files, remarks(report)) == (4, [])
    assert files(index, "sing") == ["docs/birds.md"]
    assert files(index, "cats")[0] == "docs/cats.md"


def test_a_file_that_grows_while_it_is_read_is_told_and_read_again(folder: Path) -> None:
    growing = folder / "growing.txt"
    stop = threading.Event()
    begun = threading.Event()

    def grow() -> None:
        with growing.open("wb", buffering=0) as file:
            file.write(b"a goldfish swims ")
            begun.set()
            while not stop.is_set():
                file.write(b"round ")
                if file.tell() > 100_000:
                    file.truncate(17)
                    file.seek(17)

    writer = threading.Thread(target=grow)
    writer.start()
    begun.wait()
    index = index_of(folder)
    try:
        for _ in range(20):
            index.update()
            assert files(index, "goldfish") == ["docs/growing.txt"]
    finally:
        stop.set()
        writer.join()
    write(growing, "The goldfish rests.")
    index.update()
    assert [answer.text for answer in index.search("goldfish", 1)] == ["The goldfish rests."]
    assert counts(index.update()) == (0, 0, 0)


def test_more_files_than_are_taken_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_FILES", 2)
    report = index_of(folder).update()
    assert report.files == 2
    assert remarks(report) == ["docs/fish.md: there are more than 2 files; it and all after it are left out"]


def test_names_that_are_no_text_do_no_harm(folder: Path) -> None:
    name = os.fsdecode(b"b\xff\"'; DROP TABLE files; --.md")
    write(folder / name, "# Odd\n\nA hippo.\n")
    index = index_of(folder)
    index.update()
    assert files(index, "hippo") == ["docs/b\ufffd\"'; DROP TABLE files; --.md"]
    assert counts(index.update()) == (0, 0, 0)


def test_a_damaged_index_is_made_anew(folder: Path) -> None:
    index = index_of(folder)
    index.update()
    index.path.write_bytes(b"this is no database" * 500)
    assert counts(index.update()) == (3, 0, 0)
    assert files(index, "cats")[0] == "docs/cats.md"
    with sqlite3.connect(index.path) as other:  # as an older version of the program may have left it
        other.execute("PRAGMA user_version = 999")
        other.execute("DROP TABLE shown")
    other.close()
    assert counts(index.update()) == (3, 0, 0)


def test_an_index_that_cannot_be_written_is_told_without_its_path(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where a folder should be")
    with pytest.raises(IndexUnusable) as caught:
        index_of(folder).update()
    assert str(tmp_path) not in str(caught.value)
    source = {"kind": "documents", "paths": [str(folder)], "index": str(tmp_path / "kept" / "handbook")}
    with pytest.raises(ToolError) as told:
        search("cats", context_for(search, {"handbook": source}))
    assert told.value.code is ToolCode.FAILED
    assert str(tmp_path) not in told.value.message


def test_the_same_text_twice_is_answered_once(folder: Path) -> None:
    text = "# Rules\n\nDogs must be on a lead in the park, at all times of the day and of the night.\n"
    write(folder / "rules.md", text)
    write(folder / "copy.md", text.replace("# Rules", "# Copy of the rules"))
    index = index_of(folder)
    index.update()
    assert files(index, "must dogs be on a lead in the park at night") in (
        ["docs/copy.md", "docs/dogs.md"],
        ["docs/rules.md", "docs/dogs.md"],
    )


def test_threads_and_processes_share_an_index(folder: Path) -> None:
    for number in range(150):
        write(folder / f"{number}.md", f"# Article {number}\n\nAbout number {number} and zebras.\n")
    index = index_of(folder)
    program = (
        "import sys; from pathlib import Path; from tornado_live.tools.knowledge.index import Index\n"
        "index = Index(Path(sys.argv[1]), [Path(sys.argv[2])], 900)\n"
        "for _ in range(5): index.forget(); index.update(); index.search('zebras', 3)\n"
    )
    command = [sys.executable, "-c", program, str(index.path), str(folder)]
    others = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for report in pool.map(lambda _: index.refresh(60), range(20)):
            assert report is not None
    assert [other.wait(60) for other in others] == [0, 0]
    assert index.update().files == 153
    with sqlite3.connect(index.path) as connection:
        rows = connection.execute("SELECT count(*), count(DISTINCT file) FROM shown").fetchone()
        assert rows == (153, 153)
        connection.execute("INSERT INTO passages(passages) VALUES ('integrity-check')")
    connection.close()


@pytest.mark.proves("T40")
async def test_the_loop_goes_on_while_a_large_folder_is_read(folder: Path) -> None:
    for number in range(400):
        write(folder / f"{number}.md", f"# Article {number}\n\n" + "Many words about zebras. " * 400)
    index = index_of(folder)
    turns = 0
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(asyncio.to_thread(index.refresh, 60))
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
    report = reading.result()
    assert report is not None
    assert report.files == 403
    assert turns > 100


def test_a_search_while_the_documents_are_read_answers_with_what_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else holds the index for writing: the search does not wait for that, and says what it lacks."""
    source = {"kind": "documents", "paths": [str(folder)], "index": str(folder.parent / "kept" / "handbook")}
    context = context_for(search, {"handbook": source})
    search("cats", context)
    write(folder / "birds.md", "# Birds\n\nCats hunt them.\n")
    other = sqlite3.connect(folder.parent / "kept" / "handbook-900.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(knowledge, "PATIENCE_S", 0.05)
    answer = search("cats", context)
    other.execute("COMMIT")
    other.close()
    assert isinstance(answer, dict)
    assert answer["note"] == "The documents are still being read; a later search may find more."
    assert answer["found"] == 1
    monkeypatch.setattr(knowledge, "PATIENCE_S", 60.0)
    later = search("cats", context)
    assert isinstance(later, dict)
    assert later["found"] == 2


def test_an_index_that_cannot_be_brought_up_to_date_is_searched_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "LOCK_S", 0.05)
    source = {"kind": "documents", "paths": [str(folder)], "index": str(folder.parent / "kept" / "handbook")}
    context = context_for(search, {"handbook": source})
    search("cats", context)
    write(folder / "birds.md", "# Birds\n\nCats hunt them.\n")
    other = sqlite3.connect(folder.parent / "kept" / "handbook-900.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = search("cats", context)
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(answer, dict)
    assert answer["found"] == 1
    assert str(answer["note"]).startswith("The documents could not be read again")


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index(tmp_path_factory.mktemp("kept") / "index.db", [ROOT / "knowledge"], 900)
    index.update()
    return index


@given(text=st.text(max_size=400))
def test_no_text_is_read_as_syntax(articles: Index, text: str) -> None:
    assert isinstance(articles.search(text, 5), list)


@pytest.mark.parametrize(
    "text",
    [
        *(
            '"',
            "AND",
            "a OR NOT b",
            "NEAR(a b, 3)",
            "title:ai",
            "ai*",
            "^ai",
            "{title} : x",
            "a) OR (b",
            "--",
        ),
        *("\0", "\udcff", "² ª ٣ 𞤀𞤁", "_", "x" * 10_000, "ai " * 5_000),
    ],
)
def test_the_syntax_of_the_index_is_only_words(articles: Index, text: str) -> None:
    assert isinstance(articles.search(text, 5), list)


@given(
    st.text(alphabet="abc", min_size=1, max_size=8),
    st.text(alphabet="abc", min_size=1, max_size=8),
    st.integers(0, 2),
)
def test_a_distance_is_the_same_from_both_ends(one: str, other: str, most: int) -> None:
    far = distance(one, other, most)
    assert far == distance(other, one, most)
    assert (far == 0) == (one == other)
    assert far <= most + 1


@pytest.mark.parametrize(
    ("heard", "meant"),
    [("wether", "weather"), ("microfone", "microphone"), ("recieve", "receive"), ("ephemral", "ephemeral")],
)
def test_a_word_that_was_misheard_is_looked_for_as_the_nearest_one(heard: str, meant: str) -> None:
    assert closest(heard, ["sweater", meant, "macro", "ear"]) == [meant]
    assert closest("cat", ["car"]) == []  # of short words another one is another word
