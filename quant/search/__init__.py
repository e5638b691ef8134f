"""Which format each layer gets: what can be chosen, what it would cost, what to try next.

Pure: nothing here knows an engine, a file or a clock. The caller measures what is proposed.
"""
