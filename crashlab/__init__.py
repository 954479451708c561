"""crashlab: what does PostgreSQL lose, or corrupt, when it crashes?"""

__version__ = "0.1.0"
