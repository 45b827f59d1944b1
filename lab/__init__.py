"""The laboratory: real OpenVPN and the real service between network namespaces of this machine.

Shared by tests/e2e, demo and bench. Knows how to start programs and read what they say; must not know
what a result ought to be, and never imports the project's packages except the generated gRPC code.
"""
