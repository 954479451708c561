"""How is durability taught with servers that crash?

A lesson is one file below `texts/`, with its words in each language beside what is run, read and expected: nothing is
said twice, and no language can have another lesson. `lesson.py` reads it, `steps.py` runs its commands, `readings.py`
reads what came out of them, `puzzles.py` draws its exercise from that, `progress.py` remembers how far a learner is.
"""
