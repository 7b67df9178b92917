"""Conformance suites that a new transform or evidence inherits; plain functions, no test runner
needed.
"""
