"""Which links does a message cross, who shares them, and how long does it take?"""
