"""The lab that tests, demo and benchmarks share: namespaces with a far side that counts, a pool, an sshd, stand-ins.

Everything it makes on the host is named ``ks-<what>-<pid of the maker>-…``, so that ``clean_host`` can tell what a crashed
run left from what a living one is using.
"""

import os

# Before gRPC is loaded. With it (the default) a fork of ours starts gRPC's threads anew in the child, where they may
# abort it before it becomes what it is to be, and where what only a single thread may do (unshare) is refused.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
