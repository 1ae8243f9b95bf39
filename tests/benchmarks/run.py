"""Run all benchmarks beside this file, print one table, write out/bench.json; PROTOCOL.md says what is measured how."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "out" / "bench.json"
LIBRARIES = ("numpy", "numba", "ray", "duckdb", "pyarrow")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `value` is None where a benchmark could not run, and `target` then says why."""

    bench: str
    what: str
    value: float | None
    unit: str
    target: str


def main() -> int:
    """Measure what was asked for; returns how many benchmarks could not run."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 120)
    rows: list[Row] = []
    failed = 0
    for path in sorted(HERE.glob("bench_*.py")):
        name = path.stem.removeprefix("bench_")
        if arguments.only and name not in arguments.only:
            continue
        start = time.perf_counter()
        with Console(stderr=True).status(f"measuring {name}…"):
            try:
                found = [Row(name, *row) for row in _module(path).measure()]
                reason = "it had nothing to measure here (see above)"
            except Exception as error:  # noqa: BLE001 (one benchmark that cannot run does not take the others with it)
                found, reason = [], f"{type(error).__name__}: {error}"
                failed += 1
        rows += found or [Row(name, "could not run", None, "", reason)]
        Console(stderr=True).print(f"{name}: {time.perf_counter() - start:.0f} s", highlight=False)
    facts = machine()
    console.print(_table(rows, facts))
    _write(rows, facts, arguments.out)
    console.print(f"written to {arguments.out}", highlight=False)
    return failed


def machine() -> dict[str, Any]:
    """What figures depend on beside our own code."""
    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _arguments() -> argparse.Namespace:
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=known, help=f"only these of: {', '.join(known)}")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures are written as JSON")
    return parser.parse_args()


def _table(rows: list[Row], facts: dict[str, Any]) -> Table:
    caption = "  ".join(f"{name} {value}" for name, value in facts.items())
    table = Table("", "what", title="Benchmarks", title_justify="left", caption=caption, caption_justify="left")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("target", justify="right")
    last = ""
    for row in rows:
        if row.bench != last and last:
            table.add_section()
        label, last = ("" if row.bench == last else row.bench), row.bench
        table.add_row(label, row.what, "–" if row.value is None else _figure(row.value), row.unit, row.target)
    return table


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.4g}"


def _write(rows: list[Row], facts: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"machine": facts, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"trimtab_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
