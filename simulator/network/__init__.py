"""Which links does a message cross, and who shares them?"""
