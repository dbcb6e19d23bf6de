"""Small services in this process, on free ports of the loopback, for tests of programs that use the client.

They keep to the protos as far as a client can see, and no further; every one can be stopped, started again at the same
port, and made to forget.
"""

from narupa_client.testing.lobby import FakeLobby
from narupa_client.testing.servers import FakeImd, FakeServer, FakeTrajectory

__all__ = ["FakeImd", "FakeLobby", "FakeServer", "FakeTrajectory"]
