"""What the switches ask, each in its own words: where does this call go?"""
