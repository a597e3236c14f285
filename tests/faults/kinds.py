"""The kinds of faults, each with the function that makes so many rounds of it."""

import os

from disks import disk, files
from kills import kills
from limits import memory, poison
from servers import servers
from strangers import strangers

KINDS = {
    "kills": (kills, 50),
    "files": (files, 22),
    "disk": (disk, 10),
    "servers": (servers, 8),
    "poison": (poison, 10),
    "strangers": (strangers, 40),
    "memory": (memory, 2),
}
"""Each with its rounds."""
assert os.name == "posix"
