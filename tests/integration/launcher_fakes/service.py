"""A stand-in for the trajectory service's program: does what BEHAVIOUR says until it is asked to end."""

import os
import signal
import subprocess
import sys
import time

print("arguments:", *sys.argv[1:], flush=True)
print("key of", len(os.environ.get("NARUPA_TRAJECTORY_SERVICE_KEY", "")), "characters", flush=True)
behaviour = os.environ.get("BEHAVIOUR", "serves")
if behaviour == "fails":
    print("cannot go on", flush=True)
    sys.exit(3)
if behaviour == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
while True:
    time.sleep(0.02)
