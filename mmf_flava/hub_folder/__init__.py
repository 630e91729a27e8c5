"""Folders of models for the Hugging Face Hub: weights, processors, and a card with what is known about the weights."""
