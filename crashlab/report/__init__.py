"""How is a result told: to people (`console`, `html_report`), to programs (`json_report`), to CI (`junit`, `github`)?

What is said about a finding comes from `story`, what many trials come to from `summary` and `window`.
"""
