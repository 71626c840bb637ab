"""Microbenchmarks: matrix products, convolutions, memory, collectives, storage, and the roofline from them."""
