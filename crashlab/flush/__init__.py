"""What does a flush cost at a place, can it have reached a medium, and does it keep what it says across a power cut?"""
