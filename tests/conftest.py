"""One thread, here and in the processes that tests start: two are many times slower beside a busy neighbour."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which no test has done yet
