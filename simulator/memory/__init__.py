"""How many bytes are alive on a rank, and when?"""
