"""Simulations as Slurm jobs, through Slurm's own commands."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from narupa_lobby.launchers.launcher import Job, LaunchError, Seen, last_lines
from narupa_lobby.launchers.settings import SlurmSettings

CALL_LIMIT_S: Final = 30.0
POLL_S: Final = 0.5
TAIL_BYTES: Final = 64 * 1024
OWN_PREFIX: Final = "NARUPA_"
# Of the lobby's environment, what a job gets besides its own; all the rest stays here.
PASSED_ON: Final = ("HOME", "LANG", "LOGNAME", "PATH", "USER")

_JOB_ID: Final = re.compile(r"\d{1,12}")
_PENDING: Final = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
_RUNNING: Final = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
_ENDS: Final = {
    "TIMEOUT": "reached its time limit; give it more in slurm.time_limit",
    "OUT_OF_MEMORY": "ran out of memory; give it more in resources.memory",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "was preempted by another job",
    "CANCELLED": "was cancelled",
    "BOOT_FAIL": "its node failed to start",
    "DEADLINE": "reached its deadline",
}


class SlurmLauncher:
    """Each simulation is a batch job; the ref is its id and name."""

    name = "slurm"
    outlives_lobby = True

    def __init__(self, settings: SlurmSettings, log_dir: Path) -> None:
        """Nothing is asked of Slurm yet.

        Args:
            settings: Partition, account, program.
            log_dir: Folder for the jobs' output where `settings` names none.
        """
        self._settings = settings
        self._log_dir = settings.log_dir or log_dir

    async def start(self, job: Job) -> str:
        if job.lobby_is_loopback and not job.lobby_named:
            raise LaunchError(
                f"a node of the cluster cannot reach the lobby at {job.lobby}; let it listen on another address (--host), "
                "or name it in launchers.lobby",
                lasting=True,
            )
        try:
            await asyncio.to_thread(self._log_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"cannot make {self._log_dir}: {error.strerror or error}", lasting=True) from error
        arguments = [*submission(job, self._settings), f"--output={_no_pattern(str(self._log(job.name)))}"]
        out = await _command("sbatch", arguments, script(job, self._settings), job.secrets)
        number = out.strip().partition(";")[0]  # ID or ID;CLUSTER
        if not _JOB_ID.fullmatch(number):
            raise LaunchError(f"sbatch answered {out[:100]!r} instead of a job's id", lasting=False)
        return f"{number}:{job.name}"

    async def find(self, job: Job) -> str | None:
        out = await _command("squeue", ["--noheader", "--me", f"--name={job_name(job)}", "--format=%i"])
        numbers = [line.strip() for line in out.splitlines() if _JOB_ID.fullmatch(line.strip())]
        return f"{max(numbers, key=int)}:{job.name}" if numbers else None

    async def look(self, ref: str) -> Seen:
        number, _ = _parts(ref)
        try:
            out = await _command("squeue", ["--noheader", f"--jobs={number}", "--states=all", "--format=%T|%r"])
        except LaunchError as error:
            if "Invalid job id" not in str(error):
                raise
            out = ""
        state, _, why = out.strip().partition("|")
        if state in _PENDING:
            return Seen("pending", reason=f"waits in Slurm's queue ({why})")
        if state in _RUNNING:
            return Seen("running")
        return await self._past(number, state)

    async def _past(self, number: str, state: str) -> Seen:
        """What became of a job that has ended, of which squeue may know the state."""
        code: int | None = 0 if state == "COMPLETED" else None
        try:
            fields = ["--noheader", "--parsable2", "--allocations", f"--jobs={number}", "--format=State,ExitCode"]
            told = (await _command("sacct", fields)).splitlines()
            if told:
                state, _, codes = told[-1].partition("|")
                state = state.split(" ")[0]  # "CANCELLED by 1000"
                status, _, killed_by = codes.partition(":")
                code = -int(killed_by) if killed_by.isdigit() and int(killed_by) else int(status or 0)
        except (LaunchError, ValueError):  # a cluster without accounting
            pass
        if not state:
            return Seen("gone", reason="its job has left the queue")
        if state in _PENDING | _RUNNING:  # the records are a moment behind
            return Seen("running")
        return Seen("ended", code, _ENDS.get(state, f"ended with exit status {code}" if code else state.lower()))

    async def log_tail(self, ref: str, lines: int) -> list[str]:
        return await asyncio.to_thread(self._log_tail, _parts(ref)[1], lines)

    def _log_tail(self, name: str, lines: int) -> list[str]:
        try:
            with self._log(name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                return last_lines(file.read().decode(errors="replace"), lines)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LaunchError(f"the log cannot be read: {error.strerror or error}", lasting=False) from error

    async def stop(self, ref: str, grace_s: float) -> None:
        number, _ = _parts(ref)
        for signal in ([], ["--signal=KILL"]):  # the first: SIGTERM, and SIGKILL after the cluster's own KillWait
            if (await self.look(ref)).state not in ("pending", "running"):
                return
            await _command("scancel", [*signal, number])
            deadline = time.monotonic() + max(grace_s, POLL_S)
            while time.monotonic() < deadline:
                if (await self.look(ref)).state not in ("pending", "running"):
                    return
                await asyncio.sleep(POLL_S)

    async def remove(self, ref: str) -> None:
        await self.stop(ref, 0.0)
        await asyncio.to_thread(self._log(_parts(ref)[1]).unlink, missing_ok=True)

    async def close(self) -> None:
        """There is nothing to let go."""

    def _log(self, name: str) -> Path:
        return self._log_dir / f"{Path(name).name}.log"


def job_name(job: Job) -> str:
    """The job's name at Slurm."""
    return f"narupa-{job.name}"


def submission(job: Job, settings: SlurmSettings) -> list[str]:
    """The options of sbatch. As arguments of a program, they need no quotes and hold no surprises."""
    spec = job.spec
    passed_on = [*PASSED_ON, *job.secrets]
    options: dict[str, object] = {
        "job-name": job_name(job),
        "partition": spec.slurm.partition or settings.partition,
        "account": spec.slurm.account or settings.account,
        "qos": spec.slurm.qos,
        "constraint": spec.slurm.constraint,
        "time": spec.slurm.time_limit,
        "ntasks": 1,
        "cpus-per-task": spec.threads,
        "mem": f"{-(-spec.resources.memory // 1024**2)}M" if spec.resources.memory else None,
        "gpus": spec.resources.gpus or None,
        "chdir": str(job.folder),
        "export": ",".join(passed_on),
    }
    return [
        "--parsable",
        "--no-requeue",
        "--open-mode=append",
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
    ]


def script(job: Job, settings: SlurmSettings) -> str:
    """The batch script: exports and one exec, every value quoted. Secrets come with the environment instead."""
    program = settings.program or Path(sys.executable).with_name("narupa-trajectory")
    variables = {"PYTHONSAFEPATH": "1", **job.variables("0.0.0.0", 0)}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    command = " ".join(shlex.quote(word) for word in [str(program), *job.arguments])
    return "\n".join(["#!/bin/sh", *lines, f"exec {command}", ""])


async def _command(
    program: str, arguments: Sequence[str], stdin: str = "", secrets: Mapping[str, str] | None = None
) -> str:
    """What one of Slurm's commands prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith((OWN_PREFIX, "SBATCH_"))} | dict(
        secrets or {}
    )
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            program, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
    except OSError as error:
        raise LaunchError(
            f"cannot run {program} ({error.strerror or error}); run the lobby on a submit host of the Slurm cluster, or "
            "choose another launcher",
            lasting=True,
        ) from error
    try:
        async with asyncio.timeout(CALL_LIMIT_S):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError as error:
        raise LaunchError(f"{program} did not answer within {CALL_LIMIT_S:g} s", lasting=False) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        reason = " ".join(last_lines(err.decode(errors="replace"), 3)) or f"exit status {process.returncode}"
        # What sbatch says against a submission stays true until somebody changes it, unless the controller is away.
        away = any(words in reason for words in ("Unable to contact", "Connection refused", "timed out", "Socket"))
        raise LaunchError(f"{program} refuses: {reason}", lasting=program == "sbatch" and not away)
    return out.decode(errors="replace")


def _parts(ref: str) -> tuple[str, str]:
    number, _, name = ref.partition(":")
    if not _JOB_ID.fullmatch(number):
        raise LaunchError(f"{ref[:80]!r} is no job of the slurm launcher", lasting=True)
    return number, name


def _no_pattern(path: str) -> str:
    return path.replace("%", "%%")
