"""The demo checkpoint: drawn portraits, synthetic speech, training and evaluation.

Nothing here serves anybody. It makes what the project ships, and it is the only part that knows
the true mouth of every frame, so it is also what the whole chain is measured against.
"""
