"""How does one trial go, from a profile and a seed to evidence on disk and a verdict?"""
