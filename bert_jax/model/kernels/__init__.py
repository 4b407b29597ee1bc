"""Holds the kernels of attention, each in a file of its own, and the choice among them.

Attention itself takes query, key and value, [B, L, N, H] each, and gives [B, L, N, H]. Rows are as
`pretraining.packing` and `tasks.rows` lay them out: the sequences one behind the other in the order of their
numbers, padding (0) at the end. To add a kernel, write its file and put it into the table of `choose`.
"""
