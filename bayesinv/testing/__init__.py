"""Conformance suites that a new transform or evidence inherits, and the referee of softmax evidences; plain functions,
no test runner needed.
"""
