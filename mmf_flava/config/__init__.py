"""What a recipe may say: where it lies (``recipes``), its keys and types (``model``, ``run``), the check (``schema``).

Free of torch and MMF, so that a wrong key is named before anything heavy is imported.
"""
