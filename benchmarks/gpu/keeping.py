"""What was found, written as it is known: steps.json and report.md in the folder of the results."""

import json
from pathlib import Path
from threading import Lock
from typing import Any

STAGES = ("copy in", "vision", "text", "copy out", "viterbi")


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    part.replace(path)


class Results:
    """The folder of the results. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, Any] = {"steps": {}}
        self._lock = Lock()

    def note(self, name: str, value: Any) -> None:
        """Keep a fact of the whole run."""
        with self._lock:
            self._found[name] = value
            self._write()

    def step(self, name: str, seconds: float, failed: str | None) -> None:
        """Keep how a step ended."""
        with self._lock:
            self._found["steps"][name] = {"seconds": round(seconds, 1), "failed": failed}
            self._write()

    def _write(self) -> None:
        write_json(self._folder / "steps.json", self._found)
        (self._folder / "report.md").write_text(report(self._folder, self._found), "utf-8")


def report(folder: Path, found: dict[str, Any]) -> str:
    """Tables of what is known so far."""
    machine = _read(folder / "machine.json")
    lines = [
        f"# {machine.get('device', 'GPU')}{' (a dry run, whose figures mean nothing)' * found['setting']['dry_run']}",
        "",
    ]
    if machine:
        lines += [f"- {name}: {value}" for name, value in machine.items()] + [""]
    lines += ["| step | seconds | failed |", "|---|---|---|"]
    lines += [f"| {name} | {step['seconds']} | {step['failed'] or ''} |" for name, step in found["steps"].items()]
    for path in sorted([*folder.glob("fire-*.json"), *folder.glob("correctness.json")]):
        lines += ["", f"## {path.stem}", "", "```", json.dumps(_read(path), indent=1), "```"]
    tables = [_read(path) for path in sorted(folder.glob("table-*.json"))]
    if tables:
        lines += ["", "## Milliseconds", "", *_table(tables, machine)]
    return "\n".join(lines) + "\n"


def _table(tables: list[dict[str, Any]], machine: dict[str, Any]) -> list[str]:
    eager = next((table for table in tables if table["candidate"] == "eager fp32"), {"cases": []})
    baseline = {case["name"]: case["total"]["p50"] for case in eager["cases"]}
    head = ("case", "candidate", "p50", "p95", "p99", *STAGES, "eager FP32 /", "MiB", "of the bf16 rate")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in dict.fromkeys(case["name"] for table in tables for case in table["cases"]):
        for table in tables:
            for case in (each for each in table["cases"] if each["name"] == name):
                total, rate = case["total"], machine.get("bf16_tflops")
                share = f"{case['gflop'] / case['engines_ms'] / rate:.1%}" if rate else ""
                stages = [f"{case['stages'][stage]:.3f}" for stage in STAGES]
                times = [f"{total[each]:.3f}" for each in ("p50", "p95", "p99")]
                speedup = f"{baseline[name] / total['p50']:.1f}x" if name in baseline else ""
                cells = (name, table["candidate"], *times, *stages, speedup, str(table["device_mib"]), share)
                lines.append("| " + " | ".join(cells) + " |")
    return lines


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found
