"""How is crashlab run without its console script? `python -m crashlab`."""

from crashlab.cli import main

main()
