"""How long does one operator take alone on this hardware, and how sure are we?"""
