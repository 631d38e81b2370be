"""Publishing to the Hub: cards, licences, the file list and the upload.

A `Plan` (`distill.publish.plan`) holds one or two repositories; `distill.publish.upload` sends each in one commit.
"""
