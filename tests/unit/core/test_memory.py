import subprocess
import sys

import pytest

from baltoro.core.memory import peak_resident_bytes

MIB = 2**20

PARENT = f"""
import subprocess, sys
held = bytearray(b"x") * (300 * {MIB})
code = "from baltoro.core.memory import peak_resident_bytes as peak; print(peak())"
# A hook of its own makes subprocess fork, so that the child has the parent's memory until it calls exec.
subprocess.run([sys.executable, "-c", code], check=True, preexec_fn=lambda: None)
from baltoro.core.memory import peak_resident_bytes
print(peak_resident_bytes())
"""


def test_the_peak_stays_when_the_memory_is_given_back():
    before = peak_resident_bytes()
    held = bytearray(b"x") * (before + 64 * MIB)
    del held
    assert peak_resident_bytes() > before + 64 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is known by getrusage(2) only")
def test_a_process_is_not_blamed_for_the_memory_of_the_one_that_started_it():
    output = subprocess.run([sys.executable, "-c", PARENT], check=True, capture_output=True, text=True).stdout
    child, parent = map(int, output.split())
    assert parent > 300 * MIB
    assert child < 150 * MIB
