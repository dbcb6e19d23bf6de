#!/usr/bin/env python3
"""sbatch, squeue, sacct and scancel for one machine: checks what it is told, and runs jobs as processes.

Jobs live in the folder $FAKE_SLURM: ID.taken once there is one, ID.json what was asked, ID.pid while it runs, ID.code at its end.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ["FAKE_SLURM"])
OPTIONS = {
    "job-name", "partition", "account", "qos", "constraint", "time", "ntasks", "cpus-per-task", "mem", "gpus", "chdir",
    "export", "output", "parsable", "no-requeue", "open-mode",
}  # fmt: skip
TIME = re.compile(r"(\d+-)?\d+:\d\d:\d\d")


def refuse(reason):
    print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr)
    sys.exit(1)


def sbatch(arguments):
    script = sys.stdin.read()
    asked = {}
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in OPTIONS:
            refuse(f"unrecognized option '{argument}'")
        asked[name] = value
    if not script.startswith("#!"):
        refuse("This does not look like a batch script")
    if "time" in asked and not TIME.fullmatch(asked["time"]):
        refuse("Invalid --time specification")
    if asked.get("partition") == "nowhere":
        refuse("Batch job submission failed: Invalid partition name specified")
    exported = asked["export"].split(",")
    environment = {name: os.environ[name] for name in exported if name in os.environ}
    number = 100
    while True:  # others may be submitting at this moment
        try:
            (FOLDER / f"{number}.taken").touch(exist_ok=False)
            break
        except FileExistsError:
            number += 1
    (FOLDER / f"{number}.json").write_text(json.dumps({"asked": asked, "script": script, "environment": environment}))
    # The job's own parent, as slurmstepd is: it notes how the job ended.
    keeper = (
        "import os, subprocess, sys\n"
        "folder, number, script, output, chdir = sys.argv[1:]\n"
        "log = open(output, 'ab')\n"
        "child = subprocess.Popen(['/bin/sh', '-c', script], stdout=log, stderr=log, cwd=chdir, start_new_session=True)\n"
        "open(f'{folder}/{number}.pid', 'w').write(str(child.pid))\n"
        "code = child.wait()\n"
        "open(f'{folder}/{number}.code', 'w').write(str(code))\n"
    )
    command = [sys.executable, "-c", keeper, str(FOLDER), str(number), script, asked["output"].replace("%%", "%")]
    subprocess.Popen(
        [*command, asked["chdir"]], env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    print(f"{number};cluster")


def state(number):
    if (FOLDER / f"{number}.code").exists():
        code = int((FOLDER / f"{number}.code").read_text() or 0)
        if code == 0:
            return "COMPLETED", "0:0"
        return ("CANCELLED by 0", f"0:{-code}") if code < 0 else ("FAILED", f"{code}:0")
    return ("RUNNING", "0:0") if (FOLDER / f"{number}.pid").exists() else ("PENDING", "0:0")


def squeue(arguments):
    told = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
    if "name" in told:
        for path in FOLDER.glob("*.json"):
            live = state(path.stem)[0] in ("RUNNING", "PENDING")
            if live and json.loads(path.read_text())["asked"]["job-name"] == told["name"]:
                print(path.stem)
        return
    if not (FOLDER / f"{told['jobs']}.json").exists():
        refuse("Invalid job id specified")
    now, _ = state(told["jobs"])
    if now in ("RUNNING", "PENDING"):
        print(f"{now}|{'Resources' if now == 'PENDING' else 'None'}")


def sacct(arguments):
    told = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
    if (FOLDER / f"{told['jobs']}.json").exists():
        print("|".join(state(told["jobs"])))


def scancel(arguments):
    number = arguments[-1]
    kill = signal.SIGKILL if "--signal=KILL" in arguments else signal.SIGTERM
    if (FOLDER / f"{number}.pid").exists() and not (FOLDER / f"{number}.code").exists():
        os.killpg(int((FOLDER / f"{number}.pid").read_text()), kill)


{"sbatch": sbatch, "squeue": squeue, "sacct": sacct, "scancel": scancel}[Path(sys.argv[0]).name](sys.argv[1:])
