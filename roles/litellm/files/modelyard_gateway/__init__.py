"""The gateway: LiteLLM's application behind a guard of ours (see guard.py for what it does with a
request).
"""
