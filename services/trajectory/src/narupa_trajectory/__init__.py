"""The trajectory service: runs one source and streams its frames to everyone."""

import os

# The engine process is started afresh, never forked from gRPC's threads; its fork handlers would only complain.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
