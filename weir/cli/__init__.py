"""The verbs of `weir`, a module each or for a few that belong together.

What a verb needs is imported inside it, so that `weir --help` is instant and a part that is not
installed is missed only by the verbs that need it.
"""
