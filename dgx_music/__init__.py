"""What other DGX tools import: the generated stubs of DGX Music's services."""
