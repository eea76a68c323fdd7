"""What a user may write: the schema, one module per section; overrides; where each value stands;
what is wrong.
"""
