"""The feeds: what happened since the bundle was built, read by every process by itself.

``feed`` has the protocol, ``folder`` implements it, ``opening`` opens a feed by its address.
``stock`` and ``activity`` have the lines, ``dead_letters`` keeps those that cannot be used.
"""
