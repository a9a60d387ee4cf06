"""The operations' CUDA sources, and what compiles and launches them."""
