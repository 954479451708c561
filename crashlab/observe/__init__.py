"""What was a running server waiting for, how far was its WAL, and what did looking cost?"""

from crashlab.observe.sampler import EVERY_MS, Sampler
from crashlab.observe.samples import SAMPLES, Sample, Samples

__all__ = ["EVERY_MS", "SAMPLES", "Sample", "Sampler", "Samples"]
