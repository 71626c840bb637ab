"""Kernels on their own: matrix products, convolutions, memory, collectives, storage; and the roofline they give."""
