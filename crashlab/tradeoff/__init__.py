"""What does each setting cost, what does it save, and what does a crash take under it?"""
