"""A partition's health: stages that measure nodes and links, the verdict on what they measured, its report."""
