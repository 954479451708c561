"""crashlab: what does PostgreSQL lose, or corrupt, when it crashes?"""

__version__ = "0.2.0"
