"""The operations' CPU twins, compiled by Numba. Arrays are C-contiguous here: what is not was copied
by the signature."""
