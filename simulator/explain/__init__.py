"""Why this time, and how sure?"""
