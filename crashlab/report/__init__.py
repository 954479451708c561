"""How is a result told: to people (`console`), to programs (`json_report`), to CI (`junit`)?"""
