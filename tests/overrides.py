"""Which override of a profile do the tests of many folders need?"""


def kill_after(acks: int) -> str:
    """Kill everything after so many acknowledgements, not by the clock: a slow machine would have done too little."""
    return f'faults=[{{ kind = "kill", target = "all", when = {{ acks = {acks} }} }}]'
