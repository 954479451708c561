"""How does a test fail that is about a crash, and which exceptions has the crash itself caused?"""


class CrashFailure(AssertionError):
    """What the test is to be told; an assertion, so that every test runner reports it as a failure."""


def is_consequence(error: BaseException) -> bool:
    """Say whether an exception that came after the crash may be one of it: no assertion, no interrupt.

    pytest's own outcomes are no `Exception`. A group is a consequence if all in it are.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_consequence(one) for one in error.exceptions)
    return isinstance(error, Exception) and not isinstance(error, AssertionError)
