"""What came of a data directory whose initialisation was killed?

Checks: that a server can be had at all, that nothing is missing that an init script was to make, and that nothing is
    that a script had made which had run to its end.
Does not check: what the image's own scripts make; of those it is told which were never run to their end. What initdb
    itself makes after template1, such as the views of information_schema.
Choices: an initialisation that was killed is not held against PostgreSQL, which promises nothing about it. The finding
    is the image's entry point: it takes what is there for a whole. Where all had been done before the kill, and of a
    script that had ended, whose commits were answered, everything is promised as ever.

Source: initdb's manual page; trial/firststart.py.
"""

from crashlab.model import Observation
from crashlab.oracle.findings import Findings

NAMES_MAX = 5


def check_first_start(findings: Findings, observation: Observation) -> bool:
    """Report what a killed first start left; return whether a server started on it."""
    first = observation.first_start
    if first is None or (first.whole and not first.started):
        return True  # the last is a crash like any other, and its server does not come back
    killed = f"The container was killed in its first start, {first.reached}"
    if not first.started:
        words = "; ".join(line.strip() for line in first.last_words if line.strip()) or "without a word in its log"
        became = "runs, and lets nobody in" if first.refuses else "ended"
        says = f"{killed}, and started again on the same volume it {became}: {words}."
        findings.add("INIT-NO-START", "first start", says, reached=first.reached, last_words=first.last_words)
        return False
    skipped = [table for table, script in first.missing.items() if script in first.unfinished]
    if skipped:
        said = 'which says "Skipping initialization", ' if first.skipped else ""
        says = (
            f"{killed}. The next start, {said}accepts connections as if all were well, but "
            f"{len(first.unfinished)} of {len(first.scripts)} init scripts were never run to the end "
            f"({', '.join(first.unfinished[:NAMES_MAX])}), and what they make is not there: {', '.join(skipped)}."
        )
        findings.add("INIT-SCRIPTS-SKIPPED", "first start", says, unfinished=first.unfinished, missing=skipped)
    for table, script in first.missing.items():
        if script not in first.unfinished:
            says = f"{killed}. The init script {script} had run to its end before, and its table {table} is gone."
            findings.add("LOSS-SYNC-COMMIT", "first start", says, sync="on", flushed=True, missing=table)
    return True
