"""A whole session while guests come and go without end: the memory of each of its services must stay what it was.

`python -m benchmarks.session_churn [--seconds S] [--warm-up S] [--guests N] [--samples FILE] [--curves FILE]`

`narupa session`, and a second trajectory service that relays, while so many guests at a time are there (`benchmarks/guests.py`):
each stays for some seconds, and half of them vanish. Each second the memory of every process of the session is noted: what is
its alone and written to (`Private_Dirty`), its resident set, open files and threads. Growth is that of the private memory from
the median of the first tenth after the warm-up to that of the last; the slope is a line through all after the warm-up. Ends
with status 1 where one has grown by 2 % or more, or has died.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from benchmarks.figures import Figure, note
from benchmarks.guests import KINDS, Doors, Visit, visit
from narupa_client import Endpoint
from narupa_client.lobby import list_services
from narupa_shared.testing.ports import unused_port

ROOT: Final = Path(__file__).resolve().parents[1]
PEPTIDE: Final = ROOT.parent / "shared" / "data" / "17-ala.xml"
FLAT_PERCENT: Final = 2.0
START_LIMIT_S: Final = 120.0
# That a guest has left is kept until their token has expired: here no longer than the warm-up takes.
TOKEN_TTL_S: Final = 120.0
# How often each kind of guest comes, of all that come.
OFTEN: Final = {
    "native": 4,
    "passing": 2,
    "host": 1,
    "recorder": 1,
    "narupa": 3,
    "nanover": 3,
    "headset": 4,
    "stranger": 1,
    "silent": 1,
}
assert OFTEN.keys() == KINDS.keys()
_CONTEXT: Final = multiprocessing.get_context("forkserver")


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one time: s since the start, kB, and counts."""

    at_s: float
    private_kb: int
    resident_kb: int
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """Of one process, after the warm-up.

    Attributes:
        first, last: Medians of the first and the last tenth of the samples; files and threads are their highest.
        percent: By which the private memory has grown.
        slope_kb_per_h: Of a line through all private memory.
    """

    first: Sample
    last: Sample
    percent: float
    slope_kb_per_h: float


def growth(samples: Sequence[Sample], warm_up_s: float) -> Growth:
    """What has become of these since `warm_up_s`."""
    after = [sample for sample in samples if sample.at_s >= warm_up_s]
    tenth = max(1, len(after) // 10)
    first, last = _typical(after[:tenth]), _typical(after[-tenth:])
    slope = 0.0
    if len(after) > 1:
        slope = 3600 * float(np.polyfit([each.at_s for each in after], [each.private_kb for each in after], 1)[0])
    return Growth(first, last, 100 * (last.private_kb / first.private_kb - 1), slope)


def _typical(samples: Sequence[Sample]) -> Sample:
    return Sample(
        statistics.median(each.at_s for each in samples),
        int(statistics.median(each.private_kb for each in samples)),
        int(statistics.median(each.resident_kb for each in samples)),
        max(each.files for each in samples),
        max(each.threads for each in samples),
    )


def sampled(process: psutil.Process, at_s: float) -> Sample:
    """The process now.

    Raises:
        OSError, psutil.Error: it is gone.
    """
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Sample(at_s, sizes["Private_Dirty"], sizes["Rss"], process.num_fds(), process.num_threads())


@contextlib.contextmanager
def churned_session(source: str) -> Iterator[tuple[Doors, Mapping[str, psutil.Process]]]:
    """A session that simulates `source`, with a relay beside its leader; and its processes by name."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        lobby = f"127.0.0.1:{unused_port()}"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NARUPA_")},
            "NARUPA_GATEWAY_DISCOVERY": "false",
            "NARUPA_LOBBY_TOKEN_TTL_S": str(TOKEN_TTL_S),
            "NARUPA_TRAJECTORY_GROUP": "trajectory",
            "NARUPA_TRAJECTORY_CHECKPOINT_DIR": f"{folder}/checkpoints",
        }

        def start(*command: str) -> psutil.Popen:
            with (Path(folder) / "log").open("ab") as log:
                process = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
            stack.callback(_ended, process)
            return process

        ports = [f"--{name}-port=0" for name in ("trajectory", "imd", "gateway", "websocket")]
        narupa = str(Path(sys.executable).with_name("narupa"))
        session = start(narupa, "session", "--lobby", lobby, *ports, source)
        asyncio.run(_services(lobby, {"trajectory", "imd", "gateway"}))
        relay = start(
            sys.executable, "-m", "narupa_trajectory", "--port", "0", "--service-id", "relay", "--lobby", lobby,
            "--sources", json.dumps([source]),
        )  # fmt: skip
        services = asyncio.run(_services(lobby, {"trajectory", "imd", "gateway"}, {"relay"}))
        processes: dict[str, psutil.Process] = {"narupa session": session, "relay": relay}
        for name in ("lobby", "imd", "trajectory", "gateway"):
            processes[name] = next(each for each in session.children() if f"narupa_{name}" in each.cmdline())
        for name, parent in (("engine", processes["trajectory"]), ("standby engine", relay)):
            engines = [each for each in parent.children() if "narupa_trajectory.engine.process" in each.cmdline()]
            if engines:
                processes[name] = engines[0]
        by_kind = {service.kind: service for service in services if service.id != "relay"}
        gateway = by_kind["gateway"]
        websocket = f"127.0.0.1:{gateway.metadata['ws']}"
        addresses = [str(by_kind[kind].endpoints[0]) for kind in ("gateway", "trajectory", "imd")]
        yield Doors(lobby, addresses[0], websocket, addresses[1], addresses[2]), processes


async def _services(lobby: str, kinds: set[str], ids: set[str] = frozenset()) -> Sequence[Any]:  # type: ignore[assignment]
    """What runs, once these do."""
    async with asyncio.timeout(START_LIMIT_S):
        while True:
            with contextlib.suppress(Exception):
                running = [each for each in await list_services(Endpoint.parse(lobby)) if each.status == "running"]
                if kinds <= {each.kind for each in running} and ids <= {each.id for each in running}:
                    return running
            await asyncio.sleep(0.2)


def _ended(process: psutil.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except psutil.TimeoutExpired:
        process.kill()


def guest(doors: Doors, slot: int, until: float, mean_stay_s: float, counts: Counter[str]) -> None:
    """One after the other comes and goes until then, of `time.monotonic`."""
    rng = random.Random(slot)
    while (left := until - time.monotonic()) > 0:
        stay_s = min(0.5 + rng.expovariate(1 / mean_stay_s), 4 * mean_stay_s, left)
        kind = rng.choices(list(OFTEN), list(OFTEN.values()))[0]
        what = Visit(kind, rng.randrange(2**31), stay_s, vanishes=rng.random() < 0.5)
        process = _CONTEXT.Process(target=visit, args=(doors, what))
        process.start()
        process.join(stay_s + 30)
        if process.exitcode is None:
            process.kill()
            process.join()
        counts[kind] += 1
        counts["vanished"] += what.vanishes
        counts["failed"] += bool(process.exitcode)
        process.close()


def churn(
    doors: Doors,
    processes: Mapping[str, psutil.Process],
    seconds: float,
    guests: int,
    mean_stay_s: float,
    record: Path | None,
) -> tuple[dict[str, list[Sample]], Counter[str]]:
    """The samples of each process, and how many guests of each kind there were."""
    counts: Counter[str] = Counter()
    samples: dict[str, list[Sample]] = {name: [] for name in processes}
    began = time.monotonic()
    slots = [
        threading.Thread(target=guest, args=(doors, slot, began + seconds, mean_stay_s, counts), daemon=True)
        for slot in range(guests)
    ]
    for slot in slots:
        slot.start()
    with contextlib.ExitStack() as stack:
        rows = csv.writer(stack.enter_context(record.open("w", buffering=1))) if record else None
        while (at_s := time.monotonic() - began) < seconds:
            for name, process in processes.items():
                with contextlib.suppress(OSError, psutil.Error):
                    sample = sampled(process, at_s)
                    samples[name].append(sample)
                    if rows:
                        rows.writerow((name, *(getattr(sample, field) for field in Sample.__slots__)))
            time.sleep(1)
    for slot in slots:
        slot.join()
    return samples, counts


def curves(samples: Mapping[str, Sequence[Sample]], path: Path) -> None:
    """A picture of the private memory of each process over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, each in samples.items():
        axes.plot([sample.at_s / 60 for sample in each], [sample.private_kb / 1024 for sample in each], label=name)
    axes.set(xlabel="minutes", ylabel="private memory, MiB", title="Memory while guests come and go", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def table(grown: Mapping[str, Growth]) -> str:
    lines = [
        "| process | private MiB first | last | growth % | MiB/h | resident MiB first | last | files | threads | |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for name, each in grown.items():
        first, last = each.first, each.last
        lines.append(
            f"| {name} | {first.private_kb / 1024:.1f} | {last.private_kb / 1024:.1f} | {each.percent:+.2f} "
            f"| {each.slope_kb_per_h / 1024:+.2f} | {first.resident_kb / 1024:.1f} | {last.resident_kb / 1024:.1f} "
            f"| {first.files} -> {last.files} | {first.threads} -> {last.threads} "
            f"| {'flat' if each.percent < FLAT_PERCENT else '**grows**'} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--warm-up", type=float, help="s; unset: a fifth of all")
    parser.add_argument("--guests", type=int, default=8)
    parser.add_argument("--mean-stay", type=float, default=6.0)
    parser.add_argument("--source", default=str(PEPTIDE) if PEPTIDE.is_file() else "demo:peptide")
    parser.add_argument("--samples", type=Path, help="file to which every sample is written, as CSV")
    parser.add_argument("--curves", type=Path, help="file for a picture")
    options = parser.parse_args()
    warm_up_s = options.seconds / 5 if options.warm_up is None else options.warm_up
    _CONTEXT.set_forkserver_preload(["benchmarks.guests"])
    with churned_session(options.source) as (doors, processes):
        samples, counts = churn(doors, processes, options.seconds, options.guests, options.mean_stay, options.samples)
        dead = [name for name, process in processes.items() if not process.is_running()]
    grown = {name: growth(each, warm_up_s) for name, each in samples.items() if name not in dead}
    print(f"session_churn: {options.seconds:g} s, of which {warm_up_s:g} s to warm up; guests: {dict(counts)}")
    print(table(grown))
    for name in dead:
        print(f"session_churn: {name} has died")
    for name, each in grown.items():
        note(
            Figure(
                "session_churn", f"growth of private memory, {name}", each.percent, "%", FLAT_PERCENT, at_least=False
            )
        )
    if options.curves:
        curves(samples, options.curves)
    return 1 if dead or any(each.percent >= FLAT_PERCENT for each in grown.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
