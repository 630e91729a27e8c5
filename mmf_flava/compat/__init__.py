"""The one place that knows versions of other people's packages.

``hooks`` is installed at interpreter start by ``mmf_flava.pth`` and stays asleep until MMF, fairseq, fairscale or
torchvision is imported; then the file of cures with that package's name is loaded. ``python -m mmf_flava.compat`` says
which cures this machine needs and why. Nothing is imported here, because every Python start pays for it.
"""
