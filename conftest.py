"""Every test of the repository runs under the same fixtures and leak checks."""

import os

from hypothesis import settings

pytest_plugins = ["narupa_shared.testing.plugin"]

# The same examples in every run; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# No test leaves anything in the user's state directory; those of what is kept name their store by flag.
os.environ["NARUPA_IMD_STORE"] = "memory"
# Nothing that a test starts announces itself to the network; those of discovery name their ports by flag.
os.environ["NARUPA_GATEWAY_DISCOVERY"] = "false"
