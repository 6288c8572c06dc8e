"""The verbs of `weir`, one module each, and what they share.

A verb imports its dependencies inside its function. So `weir --help` is instant, and a missing
extra affects only the verbs that need it.
"""
