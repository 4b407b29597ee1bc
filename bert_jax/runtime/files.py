"""Writes files that are whole or not there, and only over what we have made; reads JSON that may be damaged."""

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from bert_jax.errors import UserError

MARK = ".bert_jax"  # in a folder of ours: JSON with "made", for each maker the names in it that it writes

# Temporary files and folders of this process, each with the name under which what is written of it is kept, if any.
_unfinished: dict[Path, Path | None] = {}


# ---- whole or not there --------------------------------------------------------------------------


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that it has all of the content or is as it was; makes its folder if need be.

    A symbolic link is written through: the file that it names gets the content.

    Raises:
      OSError: it cannot be written; names `path`.
    """
    with whole_file(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w", partial: Path | None = None) -> Iterator[IO]:
    """Opens a file that appears under its name when the block ends well; see `write_whole`.

    Args:
      path: the file.
      mode: "w" for UTF-8, or "wb".
      partial: the name under which what was written is kept if the block, or the process, does not end well; it is in
        the folder of `path`.

    Raises:
      OSError: it cannot be written; names `path`.
    """
    target = Path(os.path.realpath(path))
    encoding = None if "b" in mode else "utf-8"
    if target.exists() and not target.is_file():  # a device or a pipe, which is written to and not replaced
        with target.open(mode, encoding=encoding) as file:
            yield file
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target, partial) as temporary:
        # O_EXCL: neither a file nor a link that somebody has put there is written to; the mode is the user's own.
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with open(descriptor, mode, encoding=encoding) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # else the name could outlive a power cut, and not the content
            os.replace(temporary, target)
        except OSError as error:
            if error.filename not in (None, str(temporary)):
                raise
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Makes an empty folder beside `target`, for what will become it, and removes what is left of it at the end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target) as folder:
        folder.mkdir()
        yield folder


def remove_unfinished() -> None:
    """Removes the temporary files and folders of this process, which is about to end in the middle of its work."""
    for path, partial in list(_unfinished.items()):
        _give_up(path, partial)


@contextlib.contextmanager
def _temporary(target: Path, partial: Path | None = None) -> Iterator[Path]:
    """Gives a name beside `target` that nothing has, and that nobody can foresee."""
    _remove_left_over(target, partial)
    path = target.with_name(f"{_prefix(target)}{os.getpid()}-{secrets.token_hex(4)}.tmp")
    _unfinished[path] = partial
    try:
        yield path
    finally:
        _give_up(path, partial)
        _unfinished.pop(path, None)


def _give_up(path: Path, partial: Path | None) -> None:
    """Removes what is not finished, or keeps it under another name if it is to be kept and is not empty."""
    with contextlib.suppress(OSError):
        if partial and path.stat().st_size:
            with path.open("rb") as file:
                lines = sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))
            os.replace(path, partial)
            print(f"what was written so far, {lines:,} lines, is in {partial}", file=sys.stderr)
    _remove(path)


def _prefix(target: Path) -> str:
    """Returns what the temporary names for a file begin with, on this machine: others may share the disk."""
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
    return f".{target.name[:80]}.{host}-"


@functools.cache
def _remove_left_over(target: Path, partial: Path | None = None) -> None:
    """Removes what a process of this machine that is gone has left of `target`; once is enough."""
    pattern = re.compile(re.escape(_prefix(target)) + r"(\d+)-[0-9a-f]{8}\.tmp")
    for name in os.listdir(target.parent):
        found = pattern.fullmatch(name)
        if found and not _is_alive(int(found[1])):
            _give_up(target.with_name(name), partial)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


# ---- JSON ----------------------------------------------------------------------------------------


def to_json(value: Any, **options: Any) -> str:
    """Writes a result as JSON, with the options of `json.dumps`.

    Raises:
      UserError: it holds a number that is not finite: JSON has none, and it is no answer.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError as error:
        raise UserError(
            f"a result is not a finite number (in {str(value)[:80]}...): the weights or the input are beyond the "
            "range of the computation"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds one object of JSON.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: it cannot be read, or holds something else.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def parse_json(content: bytes) -> dict[str, Any]:
    """Returns the object of JSON in `content`, which may begin with a byte order mark.

    Raises:
      ValueError: it is not UTF-8, not JSON (NaN is not), nested too deep to be read, or no object; says so in a line.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        hint = " (it is UTF-16: save it as UTF-8)" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise ValueError(f"byte {error.start} is not UTF-8{hint}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__} and should hold an object of JSON")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is not JSON")


# ---- only what is ours ---------------------------------------------------------------------------


def refuse_foreign(folder: Path, maker: str, names: Collection[str], *, known: bool = False) -> None:
    """Makes sure, before any work, that writing to a folder will replace nothing that the maker has not made.

    Args:
      folder: the folder, which need not be there.
      maker: what writes, such as "corpus": what another of ours has written is not its own.
      names: what will be written in the folder, files or folders.
      known: what is in it is the maker's by another sign than the mark that `claim` leaves.

    Raises:
      UserError: the folder holds one of the names, and it is not the maker's; or it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"cannot write to {folder}: it is a file, give a folder")
    ours = set(names) if known else made(folder, maker)
    foreign = [name for name in sorted(names) if name not in ours and os.path.lexists(folder / name)]
    if foreign:
        raise UserError(
            f"{folder / foreign[0]} is there, was not made as part of a {maker} by bert_jax, and would be replaced: "
            "give another folder, or move it away"
        )


def claim(folder: Path, maker: str, names: Collection[str], *, known: bool = False) -> None:
    """Makes a folder, and marks names in it as the maker's, which it may replace from now on; see `refuse_foreign`."""
    refuse_foreign(folder, maker, names, known=known)
    before = _marked(folder)
    after = {other: set(theirs).difference(names) for other, theirs in before.items()}
    after[maker] = set(before.get(maker, ())).union(names)
    content = {each: sorted(theirs) for each, theirs in after.items() if theirs}
    if content != before:
        write_whole(folder / MARK, json.dumps({"made": content}) + "\n")


def made(folder: Path, maker: str = "") -> set[str]:
    """Returns the names in a folder that its mark says are the maker's; without one, anybody's of ours."""
    return {name for each, names in _marked(folder).items() if maker in ("", each) for name in names}


def _marked(folder: Path) -> dict[str, list[str]]:
    try:
        makers = parse_json((folder / MARK).read_bytes()).get("made")
    except (OSError, ValueError):
        return {}
    makers = makers if isinstance(makers, dict) else {}
    return {
        maker: [name for name in names if isinstance(name, str)]
        for maker, names in makers.items()
        if isinstance(names, list)
    }
