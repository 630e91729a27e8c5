"""Results of runs in the layout of Table 4 of the FLAVA paper: ``python -m mmf_flava.evaluation.table``.

Data files: ``rows.csv`` defines each row by its group, tasks and metrics; ``table4.csv`` and ``table_c1.csv`` have the
paper's values in per cent (arXiv 2112.04482v3); ``misprints.csv`` has corrections and notes.
"""
