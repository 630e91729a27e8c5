"""``python -m mmf_flava.evaluation.table``: the results of any runs in the layout of the paper's Table 4.

The data files here are ``rows.csv`` (every row: its part, the tasks and figures it is made of), the printed figures of
``table4.csv`` and ``table_c1.csv`` (arXiv 2112.04482v3, percentages), and ``misprints.csv``.
"""
