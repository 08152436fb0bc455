"""The commands: one thin file each, which parses, calls one function, and prints."""
