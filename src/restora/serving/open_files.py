"""How many files the process may have open: connections, uploads and results are files too."""

MOST = 1 << 16
"""More are not asked for."""
OF_A_JOB = 3
"""Its photo, its mask and its result."""


def allowed() -> int:
    """The number, raised as far as the system permits: shells start programs with a low one."""
    try:
        import resource
    except ImportError:  # not a Unix
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # some systems permit less than they say
        return soft
    return wanted


def kept_jobs(files: int) -> int:
    """How many finished jobs fit into half of the open files."""
    return max(files // 2 // OF_A_JOB, 1)
