"""Text files, packed or not, and what is refused of them."""

import gzip
import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.errors import SourceError
from services.common.text_files import Location, TextFile, locate

CSV = (".csv", ".csv.gz")
LINES = "".join(f"{n},{n * n}\n" for n in range(5_000))


def plain(folder: Path, data: bytes) -> Location:
    (folder / "a.csv").write_bytes(data)
    return Location(folder / "a.csv")


def gzipped(folder: Path, data: bytes) -> Location:
    (folder / "a.csv.gz").write_bytes(gzip.compress(data))
    return Location(folder / "a.csv.gz")


def zipped(folder: Path, data: bytes) -> Location:
    pack(folder / "a.zip", {"year/a.csv": data})
    return Location(folder / "a.zip", "year/a.csv")


def gzipped_in_a_zip(folder: Path, data: bytes) -> Location:
    pack(folder / "a.zip", {"a.csv.gz": gzip.compress(data)})
    return Location(folder / "a.zip", "a.csv.gz")


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


KINDS = [plain, gzipped, zipped, gzipped_in_a_zip]
type Kind = Callable[[Path, bytes], Location]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_bytes", [1, 100, 65_536])
def test_blocks_hold_whole_lines_and_know_their_first(tmp_path: Path, kind: Kind, block_bytes: int) -> None:
    file = TextFile(kind(tmp_path, LINES[:-1].encode()))
    blocks = list(file.blocks(block_bytes))
    assert b"".join(block for _, block in blocks).decode() == LINES
    for line, block in blocks:
        assert block.startswith(f"{line - 1},".encode())
    assert file.read_bytes == file.total_bytes > 0


@pytest.mark.parametrize("kind", KINDS)
def test_progress_rises_from_0_to_all_of_the_packed_bytes(tmp_path: Path, kind: Kind) -> None:
    file = TextFile(kind(tmp_path, LINES.encode()))
    seen = [0]
    for _ in file.blocks(1_000):
        assert file.read_bytes >= seen[-1]
        seen.append(file.read_bytes)
    assert seen[-1] == file.total_bytes


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    (_, text), *_ = TextFile(plain(tmp_path, b"\xef\xbb\xbfa,b\r\n1,2\r\n")).texts()
    assert text == "a,b\n1,2\n"


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.csv:2: no UTF-8 text"):
        list(TextFile(plain(tmp_path, b"1,2\n\xff\xfe\n")).texts())


@pytest.mark.parametrize("kind", [gzipped, zipped])
def test_a_bomb_is_not_unpacked(tmp_path: Path, kind: Kind) -> None:
    rows = b"1672531436,90.5,1.0\n" * 3_000_000
    file = TextFile(kind(tmp_path, rows))
    read = 0
    blocks = file.blocks()

    def read_all() -> None:
        nonlocal read
        for _, block in blocks:
            read += len(block)

    with pytest.raises(SourceError, match="unpacks to more than 200 times its size"):
        read_all()
    assert read < 30_000_000


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a line of more than"):
        list(TextFile(plain(tmp_path, b"1" * 9_000_000)).blocks())


def test_a_packed_file_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    path = gzipped(tmp_path, LINES.encode()).path
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"the packed file ends early.*copy it again"):
        list(TextFile(Location(path)).blocks())


def test_a_zip_that_is_cut_off_or_damaged_is_an_error(tmp_path: Path) -> None:
    whole = zipped(tmp_path, LINES.encode()).path.read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[:-30])
    with pytest.raises(SourceError, match=r"cut\.zip: cannot be read as a zip file.*copy it again"):
        locate(cut, CSV)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(whole[:200] + bytes(50) + whole[250:])
    (location,) = locate(damaged, CSV)
    with pytest.raises(SourceError, match="cannot be read near line"):
        list(TextFile(location).blocks())


def test_a_folder_is_searched_with_its_zip_files(tmp_path: Path) -> None:
    pack(tmp_path / "q1.zip", {"d/XBTUSD.csv": b"", "notes.txt": b""})
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ETHUSD.csv.gz").write_bytes(b"")
    (tmp_path / "other.txt").write_bytes(b"")
    found = locate(tmp_path, CSV)
    assert [location.name for location in found] == ["XBTUSD.csv", "ETHUSD.csv.gz"]
    assert [location.stem for location in found] == ["XBTUSD", "ETHUSD"]


def test_hidden_files_and_what_macos_packs_beside_each_are_left_out(tmp_path: Path) -> None:
    for name in ("a.csv", ".a.csv", ".cache/b.csv", "__MACOSX/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1\n")
    pack(tmp_path / "b.zip", {"q/b.csv": b"1\n", "__MACOSX/q/._b.csv": b"\xff", "q/.c.csv": b"1\n"})
    assert [str(found.name) for found in locate(tmp_path, CSV)] == ["a.csv", "b.csv"]
    # Who names one means it.
    assert [str(found.name) for found in locate(tmp_path / ".a.csv", CSV)] == [".a.csv"]


@pytest.mark.parametrize("block_bytes", [1, 3, 65_536])
def test_blank_lines_at_the_beginning_are_passed_and_counted(tmp_path: Path, block_bytes: int) -> None:
    file = TextFile(plain(tmp_path, b"\xef\xbb\xbf\n  \r\n\n1,2\n\n3,4\n"))
    texts = list(file.texts(block_bytes))
    assert texts[0][0] == 4
    assert "".join(text for _, text in texts) == "1,2\n\n3,4\n"
    assert file.first_line() == "1,2"
    assert TextFile(plain(tmp_path, b"\n \n")).first_line() is None


def a_link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link.csv")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../up.csv", "leads out of the archive"),
        ("a/../../up.csv", "leads out of the archive"),
        ("/etc/x.csv", "leads out of the archive"),
        (a_link(), "is a link"),
    ],
    ids=["up", "up from within", "absolute", "link"],
)
def test_a_zip_with_names_that_nobody_honest_writes_is_refused(
    tmp_path: Path, name: str | zipfile.ZipInfo, says: str
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(name, b"1,2,3\n")
    with pytest.raises(SourceError, match=says):
        locate(path, CSV)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(pack(tmp_path / "a.zip", {"a.csv": b"1,2,3\n"}).read_bytes())
    # Bit 0 of the flags, in the local header and in the directory.
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(SourceError, match="is encrypted; unpack it first"):
        locate(tmp_path / "a.zip", CSV)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b""), "of unknown kind; expected .csv, .csv.gz, .zip"),
        (lambda path: path.mkdir(), "no .csv, .csv.gz, .zip in this folder"),
    ],
    ids=["missing", "unknown", "empty folder"],
)
def test_what_is_no_text_file_is_refused_with_what_is_expected(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / "x.parquet")
    with pytest.raises(SourceError, match=says.replace(".", r"\.")):
        locate(tmp_path / "x.parquet", CSV)


def test_a_zip_without_text_files_says_so(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("readme.md", b"")
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    with pytest.raises(SourceError, match=r"a\.zip: no \.csv, \.csv\.gz in this archive"):
        locate(tmp_path / "a.zip", CSV)
