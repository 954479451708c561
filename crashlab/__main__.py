"""How does crashlab start? As the console script, and as `python -m crashlab`.

Small on purpose: it is loaded in no time, and holds back Ctrl-C while the rest of it is, which takes longer.
"""

import signal


def main() -> None:
    """Be the console script."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # `invoke` answers it
    from crashlab.cli import main as run

    run()


if __name__ == "__main__":
    main()
