"""Results of a suite: flat records, and the file that keeps them with all that they depend on."""

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from bert_jax.errors import UserError
from bert_jax.runtime.files import claim, read_json, refuse_foreign, write_whole

PACKAGES = ("bert_jax", "jax", "jaxlib", "flax", "grain", "numpy", "torch", "transformers")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One number, as docs/benchmarks/README.md describes it; `round` None: a median, or a number that is taken once."""

    suite: str
    case: str
    side: str
    metric: str
    value: float
    round: int | None = None


@dataclasses.dataclass
class Results:
    """What a suite has measured, as docs/benchmarks/README.md describes it; `environment` comes when it has ended."""

    suite: str
    title: str
    compared: str
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    measurements: list[Measurement] = dataclasses.field(default_factory=list)
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: list[dict[str, str]] = dataclasses.field(default_factory=list)
    commands: list[str] = dataclasses.field(default_factory=list)
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, case: str, side: str, **metrics: float | None) -> None:
        """Records numbers that are taken once; None is not recorded."""
        for metric, value in metrics.items():
            if value is not None:
                self.measurements.append(Measurement(self.suite, case, side, metric, value))

    def add_rounds(
        self, case: str, side: str, metric: str, values: Sequence[float], value: float | None = None
    ) -> None:
        """Records each repetition of a number, and their median or another `value` of them all."""
        for number, each in enumerate(values):
            self.measurements.append(Measurement(self.suite, case, side, metric, each, number))
        self.add(case, side, **{metric: statistics.median(values) if value is None else value})

    def leave_out(self, case: str, side: str, reason: str | Exception) -> None:
        """Records why a side is missing from a case: the first line of the reason."""
        self.left_out.append({"case": case, "side": side, "reason": (str(reason).splitlines() or [""])[0]})

    def value(self, case: str, side: str, metric: str) -> float:
        """Returns a median, or a number that is taken once; KeyError says that it was not measured."""
        return self.by_side(case, metric)[side]

    def rounds(self, case: str, side: str, metric: str) -> list[float]:
        """Returns the repetitions of a number, in order; none if it is taken once."""
        wanted = (case, side, metric)
        return [m.value for m in self.measurements if (m.case, m.side, m.metric) == wanted and m.round is not None]

    def by_side(self, case: str, metric: str) -> dict[str, float]:
        """Returns a metric of each side of a case that has it."""
        return {m.side: m.value for m in self.measurements if (m.case, m.metric, m.round) == (case, metric, None)}

    def cases(self) -> list[str]:
        """Returns the names of the cases in the order of their measurement, those without a number last."""
        return list(dict.fromkeys([m.case for m in self.measurements] + [each["case"] for each in self.left_out]))

    def sides(self, case: str) -> list[str]:
        """Returns the names of the sides of a case in the order of their measurement."""
        return list(dict.fromkeys(m.side for m in self.measurements if m.case == case))

    def metrics(self, case: str) -> list[str]:
        """Returns the metrics of a case."""
        return list(dict.fromkeys(m.metric for m in self.measurements if m.case == case and m.round is None))

    def extend(self, other: "Results") -> None:
        """Takes in what the same suite has measured in another call."""
        self.metadata |= other.metadata
        self.notes |= other.notes
        self.environment = other.environment
        for name in ("measurements", "left_out", "commands"):
            getattr(self, name).extend(getattr(other, name))

    def save(self, path: Path) -> None:
        """Writes everything as JSON, a measurement a line.

        Raises:
          UserError: the file cannot be written.
        """
        fields = dataclasses.asdict(self)
        lines = ",\n".join(f"    {json.dumps(each)}" for each in fields.pop("measurements"))
        first = ("suite", "title", "compared", "commands")
        head = {name: fields[name] for name in first} | fields.pop("environment")
        head |= {name: value for name, value in fields.items() if name not in first}
        text = json.dumps(head, indent=2).removesuffix("\n}")
        check_output(path.parent, self.suite)
        try:
            claim(path.parent, "benchmark", output_names(self.suite), known=True)
            write_whole(path, f'{text},\n  "measurements": [\n{lines}\n  ]\n}}\n')
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror})") from error

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Reads a file that `save` has written.

        Raises:
          UserError: there is no such file, or it is no result of a suite.
        """
        if not path.is_file():
            raise UserError(f"cannot read {path}: there is no such file")
        try:
            saved = read_json(path)
            saved["measurements"] = [Measurement(**each) for each in saved["measurements"]]
            names = {field.name for field in dataclasses.fields(cls)}
            own = {name: saved.pop(name) for name in names & saved.keys()}
            return cls(**own, environment=saved)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            raise UserError(f"cannot read {path}: it is no result of benchmark.py ({error!r})") from error


def output_names(suite: str) -> tuple[str, str]:
    """Returns the names of what is written of a suite: its results and their picture."""
    return f"{suite}.json", f"{suite}.svg"


def check_output(folder: Path, suite: str) -> None:
    """Makes sure that what a suite will write replaces nothing but what one has written.

    Raises:
      UserError: it would.
    """
    results, picture = output_names(suite)
    known = False
    with contextlib.suppress(UserError):
        known = bool(Results.load(folder / results))
    refuse_foreign(folder, "benchmark", [results], known=known)
    refuse_foreign(folder, "benchmark", [picture], known=known or is_drawn(folder / picture))


def is_drawn(path: Path) -> bool:
    """Says whether a file is a picture that Matplotlib has made."""
    return path.is_file() and b"Matplotlib" in path.read_bytes()[:4096]


def describe_environment() -> dict[str, Any]:
    """Returns what a speed depends on besides the code: date, machine, device, threads, commit and versions."""
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "processor": _processor(),
        "threads": len(os.sched_getaffinity(0)),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),  # beside those that `harness.started` gives each side
        "python": platform.python_version(),
        "commit": _commit(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _commit() -> str:
    """Returns that of this checkout, "-dirty" if files differ from it; nothing if this is no checkout."""
    git = functools.partial(subprocess.run, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # no git, no checkout, or another project's
        git(["git", "ls-files", "--error-unmatch", Path(__file__).name])
        return git(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]).stdout.strip()
    return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
