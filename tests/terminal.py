"""How is a command started so that Ctrl-C means something to it, wherever the tests were started?"""

import signal


def as_in_a_terminal() -> None:
    """Give a child its signals as a shell with a terminal would: for `preexec_fn`.

    The child of a background job has inherited that SIGINT is ignored, and of nohup SIGHUP; Python then leaves both so.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
