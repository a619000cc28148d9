"""Killed without warning: the run, again and again, and one of two nodes."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from hvpnet_runtime.bulk import Job, Local, annotate

pytestmark = pytest.mark.heavy

KILLS = int(os.environ.get("HVPNET_KILLS", "1"))
"""Kills of each form; the ordinary suite has time for few."""

PART_ROWS = 4
PATIENCE = 300  # seconds until a run counts as hung


@pytest.fixture(scope="module")
def source(entities: Any) -> Path:
    """Tweets, some of them bad."""
    lines = [json.dumps(row) for row in entities.rows()]
    for row in range(5, len(lines), 20):
        lines[row] = json.dumps({"id": row, "text": "a", "image": "absent.png"})
    path: Path = entities.folder / "faults.jsonl"
    path.write_text("\n".join(lines) + "\n{\n")
    return path


@pytest.fixture(scope="module")
def undisturbed(source: Path, ner_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What a run writes that nothing disturbs."""
    out = tmp_path_factory.mktemp("undisturbed") / "out.jsonl"
    annotate(Job(ner_bundle, source, out, part_rows=PART_ROWS), Local(threads=1))
    return written(out)


def written(out: Path) -> list[bytes]:
    """Output and side file; there is nothing else."""
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.jsonl", "out.jsonl.rejected.jsonl"]
    return [out.read_bytes(), out.with_name("out.jsonl.rejected.jsonl").read_bytes()]


def finished(out: Path) -> list[str]:
    """Names of the parts that are done."""
    return sorted(path.name for path in out.with_name("out.jsonl.work").glob("?????.sha256"))


def is_ours(stderr: str) -> bool:
    """Whether nothing but the bars and lines of `hvpnet:` was printed."""
    lines = [line for line in re.split(r"[\r\n]", stderr) if line.strip()]
    return all(re.match(r"counting: +\d+%\||hvpnet: | *\d+%\|.*tweets", line) for line in lines)


def wait_for(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    """Until the condition holds or the process ends."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


FORMS = {"local": (), "processes": ("--copies", 2), "ray": ("--ray",)}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_killed_at_random_moments(
    start: Any, undisturbed: list[bytes], source: Path, ner_bundle: Path, tmp_path: Path, form: tuple[object, ...]
) -> None:
    moments = random.Random(os.environ.get("HVPNET_SEED"))
    out = tmp_path / "out.jsonl"
    parts = -(-len(source.read_text().splitlines()) // PART_ROWS)
    command = ("annotate", ner_bundle, source, out, "--part-rows", PART_ROWS, "--threads", 1, "--json", *form)
    for kill in range(KILLS):
        process, before = start(*command), finished(out)
        # At any point of what is left, the start and the end included.
        share = moments.uniform(0, (parts - len(before)) / (KILLS - kill) + 1)
        wait_for(process, lambda share=share, before=before: len(finished(out)) >= len(before) + int(share))
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.communicate()
        assert set(before) <= set(finished(out)) or out.exists()
    done_before = len(finished(out))
    process = start(*command)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    if process.returncode == 1 and not stdout:
        assert "out.jsonl exists" in stderr  # the last kill came too late
    else:
        assert json.loads(stdout)["finished_before"] >= PART_ROWS * (done_before - 1)
    assert written(out) == undisturbed
    assert is_ours(stderr)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_interrupted_it_prints_only_that(
    start: Any, source: Path, ner_bundle: Path, tmp_path: Path, form: tuple[object, ...]
) -> None:
    out = tmp_path / "out.jsonl"
    process = start("annotate", ner_bundle, source, out, "--part-rows", 1, "--threads", 1, *form)
    wait_for(process, lambda: len(finished(out)) >= 2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.endswith("\nhvpnet: error: interrupted\n")
    assert is_ours(stderr)


def children(process: "subprocess.Popen[str]") -> list[int]:
    """Processes that it started."""
    found = subprocess.run(["pgrep", "--parent", str(process.pid)], check=False, capture_output=True, text=True)
    return list(map(int, found.stdout.split()))


def runs(pid: int) -> bool:
    """Whether there is such a process that is not a corpse nobody has looked at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_its_processes_end_with_it(
    start: Any, source: Path, ner_bundle: Path, tmp_path: Path, end: signal.Signals
) -> None:
    out = tmp_path / "out.jsonl"
    process = start("annotate", ner_bundle, source, out, "--part-rows", 1, "--copies", 2)
    wait_for(process, lambda: len(finished(out)) >= 2)
    workers = children(process)
    assert len(workers) >= 2
    process.send_signal(end)
    process.communicate(timeout=PATIENCE)
    eventually(lambda: not any(map(runs, workers)))


def test_a_process_that_is_killed_ends_the_run_in_one_line(
    start: Any, undisturbed: list[bytes], source: Path, ner_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    command = ("annotate", ner_bundle, source, out, "--part-rows", PART_ROWS, "--threads", 1, "--copies", 2)
    process = start(*command)
    wait_for(process, lambda: bool(finished(out)))
    workers = [pid for pid in children(process) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (1, "")
    assert re.search(
        r"\nhvpnet: error: the process at the part of row \d+ ended by SIGKILL, for want of memory or by a crash of "
        r"the backend: run again to go on\n$",
        stderr,
    )
    assert is_ours(stderr)
    process = start(*command)
    process.communicate(timeout=PATIENCE)
    assert written(out) == undisturbed


_LISTENING = """
from hvpnet_runtime.bulk.on_ray.cluster import connect

with connect(None):
    import ray

    (node,) = ray.nodes()
    print(node["NodeManagerAddress"], ray.get_runtime_context().gcs_address)
"""


def test_ray_on_this_machine_is_on_loopback(ray_folder: Path) -> None:
    environment = {**os.environ, "RAY_TMPDIR": str(ray_folder)}
    done = subprocess.run(
        [sys.executable, "-c", _LISTENING],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    node, gcs = done.stdout.split()
    assert (node, gcs.rpartition(":")[0]) == ("127.0.0.1", "127.0.0.1")


@pytest.fixture
def cluster(ray_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster whose head does no work; it notices within seconds that a node is gone."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_TMPDIR", str(ray_folder))
    quickly = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 2000,
        "health_check_failure_threshold": 3,
    }
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": quickly}
    )
    yield cluster
    cluster.shutdown()


def works(node: Any) -> bool:
    """Whether an actor that annotates runs there: Ray's node starts it, and names it by its class."""
    raylet = node.all_processes["raylet"][0].process.pid
    found = subprocess.run(["pgrep", "--parent", str(raylet), "--full", "MapWorker"], check=False, capture_output=True)
    return bool(found.stdout)


def test_a_node_of_two_is_killed(
    start: Any, cluster: Any, undisturbed: list[bytes], source: Path, ner_bundle: Path, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    out = tmp_path / "out.jsonl"
    parts = -(-len(source.read_text().splitlines()) // PART_ROWS)
    process = start(
        *("annotate", ner_bundle, source, out, "--part-rows", PART_ROWS, "--json", "--address", cluster.address)
    )
    wait_for(process, lambda: len(finished(out)) >= 4)
    at_work = next(node for node in nodes if works(node))
    assert process.poll() is None
    assert len(finished(out)) < parts
    cluster.remove_node(at_work, allow_graceful=False)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, stderr  # some rows are bad
    assert json.loads(stdout)["rows"] == 49
    assert written(out) == undisturbed
    assert is_ours(stderr)
