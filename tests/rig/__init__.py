"""The lab that tests, demo and benchmarks share: namespaces with a far side that counts, a pool, an sshd, stand-ins.

Everything it makes on the host is named ``ks-<what>-<pid of the maker>-…``, so that ``clean_host`` can tell what a crashed
run left from what a living one is using.
"""
