"""Published image classification datasets as records: torchvision's datasets, and CLIP's versions where they differ."""
