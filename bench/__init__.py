"""`make bench`: every contender in turn between the same two namespaces of this machine, beside each other.

Uses the laboratory as demo/ does; what a stage of the packet path costs alone is measured in stages/.
"""
