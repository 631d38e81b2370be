"""What goes to the Hub, and how: cards, licences, the list of files, the upload.

Enters: a recipe, its run folder, the manifests of its finished stages. Leaves: a `Plan` (see `distill.publish.plan`) of
one repository or two, which `distill.publish.upload` brings to the Hub, each in one commit.
"""
