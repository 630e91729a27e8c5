"""``python -m mmf_flava.evaluation.table``: results of runs in the layout of the paper's Table 4.

Data files: ``rows.csv`` defines each row by its group, tasks and metrics; ``table4.csv`` and ``table_c1.csv`` have the
paper's values in per cent (arXiv 2112.04482v3); ``misprints.csv`` has corrections and notes.
"""
