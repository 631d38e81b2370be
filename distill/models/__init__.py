"""What is known of models: student table, shapes, tokenizers, chat templates, the Hub client.

Imports `storage` and below.
"""
