"""How is everything written down that a server does to its files, and is the record complete?"""
