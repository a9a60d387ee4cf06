"""What holds for all tests, before any of them is imported."""

import os

# Tests start processes while gRPC's clients run, and gRPC's handlers of forks may abort the child, which needs none: it
# runs another program at once.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
