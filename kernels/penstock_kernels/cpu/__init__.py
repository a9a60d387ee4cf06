"""The operations' CPU twins, compiled by Numba. Arrays are C-contiguous here: what is not was copied
by the signature.

Parts of arrays are sliced before a loop: where its first index may be below 0, which means from the end on, the loop
has no vectors.
"""
