"""Models: student table, shapes, tokenizers, chat templates and the Hub client. Imports `storage` and below."""
