"""What a recipe may say: the files (``recipes``), the keys and their types (``model``, ``run``), the check (``schema``).

Free of torch and MMF, so that a wrong key is named before anything heavy is imported.
"""
