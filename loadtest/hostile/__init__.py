"""Hostile input at every door: seeded cases, a runner, a checker, a report.

A door draws a case from a seed and a number, knocks with it, and judges what came of it
(`loadtest.hostile.doors`). Beside all doors a good client goes on, whose answers are compared.
"""
