"""What a model is worth: it needs ``encode_image`` and ``encode_text`` only. Runs inside MMF's trainer."""
