"""Puts a record for somebody and gets it as that somebody, over and over: ROOT @FROM @TO COUNT."""

import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from at_client import AtClient
from at_client.common import AtSign
from at_client.common.keys import SharedKey
from at_client.connections.address import Address

root, giver, taker, count = Address.from_string(sys.argv[1]), AtSign(sys.argv[2]), AtSign(sys.argv[3]), int(sys.argv[4])
gives, takes = AtClient(giver, root_address=root), AtClient(taker, root_address=root)


def key():
    # A new object each time, as a program makes it: the SDK keeps metadata in it.
    return SharedKey("round.bench", giver, taker)


# The shared key is made and found.
gives.put(key(), "0")
takes.get(key())
cpu = time.process_time()
put_ms, get_ms = [], []
for number in range(count):
    start = time.perf_counter()
    gives.put(key(), f"value {number}")
    middle = time.perf_counter()
    value = takes.get(key())
    end = time.perf_counter()
    assert value == f"value {number}", value
    put_ms.append((middle - start) * 1000)
    get_ms.append((end - middle) * 1000)
cpu = time.process_time() - cpu
answers.write(json.dumps({"put_ms": put_ms, "get_ms": get_ms, "cpu_seconds": cpu}) + "\n")
answers.flush()
os._exit(0)
