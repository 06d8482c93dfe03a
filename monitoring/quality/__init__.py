"""Live quality: rates of answers by person, what they should be, and whose fault a fall is."""
